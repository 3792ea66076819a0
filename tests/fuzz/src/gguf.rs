//! Reads arbitrary bytes as a GGUF file. The result must be a model or an error, without a panic and without
//! much memory.
//!
//!     cargo +nightly fuzz run --fuzz-dir tests/fuzz gguf -- -max_len=65536 -malloc_limit_mb=100

#![no_main]

use libfuzzer_sys::fuzz_target;
use wgpt::{
    buffers::Sizes,
    capabilities::Capabilities,
    engine::plans,
    model::Model,
    tokenizer::Tokenizer,
    weights::{Bytes, Format, Gguf},
};

const SIZES: Sizes =
    Sizes { rows: [8, 8], outputs: 8, sequences: 1, guesses: 0, adapters: 0, context: 32, blocks: 1 };

fuzz_target!(|bytes: &[u8]| {
    let Ok(gguf) = Gguf::read("file", Bytes::new(bytes.to_vec())) else { return };
    if let Ok(tokenizer) = Tokenizer::from_gguf(&gguf) {
        let ids = tokenizer.encode("Once upon a time, 12 naïve\n 🦙", true).unwrap_or_default();
        tokenizer.decode(&ids, false);
    }
    let Ok(mut model) = Model::from_gguf("file".to_owned(), &gguf) else { return };
    model.quantize(Format::Q4_K);
    let _ = plans(&model, &Capabilities::webgpu(), SIZES);
});
