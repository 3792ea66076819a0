//! Quantising while loading and to a file. Both give the same model.

use crate::{
    gguf::{self, blocks},
    models::engine,
    passes,
    support::{Fixture, On, path},
};
use serde_json::{Value, json};
use std::{fs, path::Path};
use wgpt::{
    buffers::Content,
    capabilities::Capabilities,
    engine::{EngineOptions, plans},
    error::Kind,
    model::Model,
    quantize::quantize,
    weights::{Bytes, Format, Gguf},
};

const DEMO: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/src/demo");

fn write(from: &Path, to: Format, output: &Path) -> wgpt::error::Result<()> {
    quantize(from, to, output, false, &|_, _| true).map(|_| ())
}

fn logprobs(model: &Model, on: On, tokens: &[u32]) -> Option<Vec<f64>> {
    let mut engine = engine(model, on, EngineOptions { scores: true, ..Default::default() })?;
    Some(engine.logprobs(tokens, 1).expect("tokens that fit"))
}

/// A tokenizer of single bytes, for fixtures, which have none.
fn bytes_tokenizer() -> String {
    let ids: serde_json::Map<_, _> =
        ('!'..='Z').enumerate().map(|(id, token)| (token.to_string(), json!(id))).collect();
    let byte_level =
        json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true});
    json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": [], "normalizer": null,
        "pre_tokenizer": byte_level, "post_processor": null, "decoder": byte_level,
        "model": {
            "type": "BPE", "vocab": ids, "merges": [], "dropout": null, "unk_token": null,
            "continuing_subword_prefix": null, "end_of_word_suffix": null, "fuse_unk": false,
            "byte_fallback": false,
        },
    })
    .to_string()
}

/// Every fixture that GGUF can describe gives the same results when written as GGUF without quantising. The
/// others are refused.
#[test]
fn fixtures_are_the_same_in_gguf() {
    let folder = tempfile::tempdir().expect("a folder");
    let (mut written, mut refused) = (0, Vec::new());
    for fixture in Fixture::all() {
        let (from, output) = (folder.path().join(&fixture.name), folder.path().join("out.gguf"));
        fs::create_dir(&from).expect("a folder");
        for entry in fs::read_dir(path("fixtures/models").join(&fixture.name)).expect("the fixture") {
            let entry = entry.expect("a file");
            fs::copy(entry.path(), from.join(entry.file_name())).expect("a copy");
        }
        fs::write(from.join("tokenizer.json"), bytes_tokenizer()).expect("a file");
        match write(&from, Format::F32, &output) {
            Ok(()) => {
                let gguf = Gguf::open(&output).expect("a GGUF file");
                let model = Model::from_gguf(fixture.name.clone(), &gguf).expect("a model");
                assert_eq!(model.eos, fixture.model.eos, "{}", fixture.name);
                let got = logprobs(&model, On::Cpu, &fixture.tokens).expect("the CPU");
                for (got, expected) in got.iter().zip(fixture.logprobs()) {
                    assert!((got - expected).abs() < 1e-4, "{}: {got} for {expected}", fixture.name);
                }
                written += 1;
            }
            Err(e) => {
                assert_eq!(e.kind(), Kind::Model, "{e}");
                assert!(e.remedy() == Some(wgpt::error::Remedy::QuantizeAtLoad), "{e}");
                refused.push(fixture.name);
            }
        }
    }
    assert_eq!(
        refused,
        [
            "gpt-neo",
            "gpt-neo-local-first",
            "gpt1",
            "gpt1-bare",
            "gpt1-relu",
            "gpt1-silu",
            "gpt1-untied",
            "gpt2-gelu",
            "gpt2-inverse-layer",
            "gpt2-quick-gelu",
            "gpt2-relu",
            "gpt2-silu",
            "gpt2-tanh",
            "gpt2-unscaled",
            "llama-theta",
            "llama-yarn-mscale",
            "mistral",
            "qwen2-window",
            "qwen3-biases",
            "smollm3-interval"
        ]
    );
    assert!(written >= 21, "{written} fixtures");
}

/// A tokenizer of which GGUF metadata cannot say all is refused, and what it cannot say is named. Forced, the
/// file is written all the same.
#[test]
fn tokenizers_that_would_read_back_differently_are_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let output = folder.path().join("out.gguf");
    for file in ["config.json", "model.safetensors"] {
        let fixture = path("fixtures/models/gpt2").join(file);
        fs::copy(fixture, folder.path().join(file)).expect("a copy");
    }
    // Without a class that would decide of itself whether a blank stands before every text.
    let config = json!({"tokenizer_class": "PreTrainedTokenizerFast"});
    fs::write(folder.path().join("tokenizer_config.json"), config.to_string()).expect("a file");
    let check = |change: &dyn Fn(&mut Value), unsaid: Option<&str>| {
        let mut tokenizer: Value = serde_json::from_str(&bytes_tokenizer()).expect("JSON");
        let ids = &mut tokenizer["model"]["vocab"];
        (ids["\u{120}"], ids["<E>"], ids["XYZ"]) = (json!(58), json!(59), json!(60));
        tokenizer["added_tokens"] = json!([{
            "id": 59, "content": "<E>", "special": true, "single_word": false, "lstrip": false,
            "rstrip": false, "normalized": true,
        }]);
        change(&mut tokenizer);
        fs::write(folder.path().join("tokenizer.json"), tokenizer.to_string()).expect("a file");
        let quantize = |force| quantize(folder.path(), Format::F32, &output, force, &|_, _| true);
        let forced = quantize(true).expect("it is written").unsaid;
        match unsaid {
            None => {
                assert_eq!(forced, None);
                quantize(false).expect("it is written");
            }
            Some(unsaid) => {
                assert_eq!(forced.as_deref(), Some(unsaid));
                fs::remove_file(&output).expect("the file");
                let error = quantize(false).err().expect("it is refused");
                assert!(error.kind() == Kind::Model && !output.exists());
                let wanted = format!("a GGUF file cannot say of a tokenizer: {unsaid}; ");
                assert!(error.to_string().starts_with(&wanted), "{error}");
            }
        }
    };
    check(&|_| (), None);
    let flag = |flag: &'static str| move |json: &mut Value| json["added_tokens"][0][flag] = json!(true);
    let blanks = "added tokens that take the blanks beside them, such as <E>";
    check(&flag("lstrip"), Some(blanks));
    check(&flag("rstrip"), Some(blanks));
    check(&flag("single_word"), Some("added tokens that are whole words only, such as <E>"));
    check(
        &|json| json["normalizer"] = json!({"type": "Lowercase"}),
        Some("added tokens that are normalized, such as <E>; the normalizer Lowercase"),
    );
    check(
        &|json| {
            json["normalizer"] = json!({"type": "NFC"});
            json["added_tokens"][0]["normalized"] = json!(false);
        },
        Some("the normalizer NFC"),
    );
    check(
        &|json| json["model"]["ignore_merges"] = json!(true),
        Some("whether a word that is a token needs merges (ignore_merges)"),
    );
    check(&|json| json["pre_tokenizer"]["add_prefix_space"] = json!(true), Some("a space before every text"));
    // A token that is not special here, but ends answers wherever there is one.
    check(
        &|json| {
            json["model"]["vocab"].as_object_mut().expect("ids").remove("XYZ");
            json["model"]["vocab"]["[EOS]"] = json!(60);
        },
        Some("that the token [EOS] is not special"),
    );
    // SentencePiece.
    let sentence_piece = |merges: Value| {
        move |json: &mut Value| {
            *json = serde_json::from_slice(include_bytes!("../src/demo/tokenizer.json")).expect("JSON");
            let ids: serde_json::Map<_, _> = ["<unk>", "<s>", "</s>", "\u{2581}", "a", "b", "c", "ab", "bc"]
                .into_iter()
                .zip(0..)
                .map(|(token, id)| (token.to_owned(), json!(id)))
                .collect();
            (json["model"]["vocab"], json["model"]["merges"]) = (Value::Object(ids), merges.clone());
        }
    };
    check(&sentence_piece(json!([["b", "c"], ["a", "b"]])), None);
    check(&sentence_piece(json!([["a", "b"]])), Some("the token bc, which no merge makes"));
}

/// The rows of q and k are in the order that readers of the family expect: Hugging Face's order for Qwen,
/// adjacent pairs for LLaMA and SmolLM3. This also holds for a file that is quantised again.
#[test]
fn q_and_k_stand_as_readers_of_a_family_expect_them() {
    let folder = tempfile::tempdir().expect("a folder");
    for (name, keeps_order) in
        [("qwen2", true), ("qwen3", true), ("smollm3", false), ("llama-grouped", false)]
    {
        let from = folder.path().join(name);
        fs::create_dir(&from).expect("a folder");
        for file in ["config.json", "model.safetensors"] {
            let fixture = path("fixtures/models").join(name).join(file);
            fs::copy(fixture, from.join(file)).expect("a copy");
        }
        fs::write(from.join("tokenizer.json"), bytes_tokenizer()).expect("a file");
        let [once, twice] = ["once.gguf", "twice.gguf"].map(|file| folder.path().join(file));
        write(&from, Format::F32, &once).expect("it is written");
        write(&once, Format::F16, &twice).expect("it is written");
        let bytes = fs::read(from.join("model.safetensors")).expect("a file");
        let stored = safetensors::SafeTensors::deserialize(&bytes).expect("safetensors");
        let q = stored.tensor("model.layers.0.self_attn.q_proj.weight").expect("q");
        let expected: Vec<u16> = bytemuck::pod_collect_to_vec(q.data());
        let expected: Vec<f32> = expected.iter().map(|bits| f32::from_bits(u32::from(*bits) << 16)).collect();
        for (file, tolerance) in [(once, 0.0), (twice, 1e-3)] {
            let gguf = Gguf::open(&file).expect("a GGUF file");
            let entry = gguf.checkpoint.get("blk.0.attn_q.weight").expect("q");
            let tensor = entry.tensor.as_ref().expect("a type that is read");
            let mut got = vec![0.0; expected.len()];
            tensor.format.unpack(tensor.bytes(), &mut got);
            let is_same = got.iter().zip(&expected).all(|(a, b)| (a - b).abs() <= tolerance);
            assert_eq!(is_same, keeps_order, "{name}: {}", file.display());
            let expected: std::collections::BTreeSet<_> =
                expected.iter().map(|v| (v * 512.0).round() as i32).collect();
            let got: std::collections::BTreeSet<_> = got.iter().map(|v| (v * 512.0).round() as i32).collect();
            assert_eq!(got, expected, "{name}: the same values in some order");
        }
    }
}

/// Quantising while loading and loading a quantised file give the same bits.
#[test]
fn at_load_and_in_a_file_are_one() {
    let folder = tempfile::tempdir().expect("a folder");
    let tokens: Vec<u32> = (0..40).map(|i| 3 + i * 37 % 500).collect();
    for format in [Format::Q8_0, Format::Q4_0, Format::Q4_K, Format::Q2_K, Format::F16] {
        let output = folder.path().join("out.gguf");
        write(Path::new(DEMO), format, &output).expect("it is written");
        let (from_file, tokenizer) = Model::open(&output).expect("a model");
        let (mut at_load, own) = Model::built_in().expect("the built-in model");
        let quantized = at_load.quantize(format);
        // The MLP's width, 172, is not a multiple of any format's block length, and the hidden size, 64, is
        // not a multiple of 256.
        let matrices = at_load.tensors.layers.len() * 7 + 1;
        let short = at_load.tensors.layers.len();
        assert_eq!(quantized.packed, matrices, "{format:?}");
        let fallbacks = match format {
            Format::F16 => 0,
            Format::Q4_K | Format::Q2_K => matrices,
            // The head, which is also the embedding, would be packed as Q6_K.
            Format::Q4_0 => short + 1,
            _ => short,
        };
        assert_eq!(quantized.fallbacks, fallbacks, "{format:?}");
        let text = "Once upon a time, they'll see  Ünïcode\n 123!";
        let ids = |tokenizer: &wgpt::tokenizer::Tokenizer| tokenizer.encode(text, true).expect("ids");
        assert_eq!(ids(&tokenizer), ids(&own));
        assert_eq!((from_file.bos, &from_file.eos), (at_load.bos, &at_load.eos));
        for on in [On::Cpu, On::Gpu] {
            let Some(expected) = logprobs(&from_file, on, &tokens) else { continue };
            assert_eq!(logprobs(&at_load, on, &tokens), Some(expected), "{format:?} on {on:?}");
        }
    }
}

/// A GGUF file that is quantised while loading: in every format each pass equals its definition, and weights
/// take at most 5 % more bytes on the GPU than the formats need.
#[test]
fn quantised_at_load_computes_as_its_definition() {
    let file = gguf::llama(&[Format::F16]);
    for format in blocks() {
        let mut fixture = gguf::fixture(format!("{format:?} at load"), file.clone());
        let quantized = fixture.model.quantize(format);
        assert_eq!((quantized.packed, quantized.fallbacks, quantized.kept), (8, 0, 0), "{format:?}");
        for on in [On::Cpu, On::Gpu] {
            let Some(device) = on.open() else { break };
            passes::check(&fixture, on, device, |_| ());
        }
        let plans = plans(&fixture.model, &Capabilities::webgpu(), passes::SIZES).expect("plans");
        let loaded = plans.buffers.all().filter(|b| {
            matches!(plans.buffers.content(*b), Content::Loaded(_)) && plans.buffers.label(*b) != "rope_table"
        });
        let bytes: u64 = loaded.map(|b| plans.buffers.bytes(b, &plans.sizes)).sum();
        let of = |spec: &wgpt::weights::TensorSpec| match spec.format {
            Some(format) => format.row_bytes(spec.columns() as usize) * spec.shape[0] as usize,
            None => spec.shape.iter().product::<u32>() as usize * 4,
        };
        let packed: usize = fixture.model.tensors.specs().into_iter().map(of).sum();
        // Rows are padded to 16 bytes, which is much for rows as short as these.
        assert!(bytes as f64 <= packed as f64 * 1.15, "{format:?}: {bytes} bytes for {packed}");
    }
}

/// Packing coarse weights into more bits gains nothing, so they stay as they are.
#[test]
fn coarser_weights_stay_as_they_are() {
    let folder = tempfile::tempdir().expect("a folder");
    let output = folder.path().join("out.gguf");
    let file = gguf::llama(&[Format::Q4_0, Format::Q8_0]);
    let mut fixture = gguf::fixture("mixed".to_owned(), file.clone());
    let quantized = fixture.model.quantize(Format::Q6_K);
    assert_eq!((quantized.packed, quantized.fallbacks, quantized.kept), (4, 0, 4));
    let from = folder.path().join("in.gguf");
    fs::write(&from, file).expect("a file");
    write(&from, Format::Q6_K, &output).expect("it is written");
    let written = fs::read(&output).expect("the file");
    let again = gguf::fixture("written".to_owned(), written.clone());
    assert_eq!(
        logprobs(&again.model, On::Cpu, &fixture.tokens),
        logprobs(&fixture.model, On::Cpu, &fixture.tokens)
    );
    let formats = Gguf::read("out.gguf", Bytes::new(written)).expect("a GGUF file").checkpoint;
    let count = |dtype: &str| formats.entries().filter(|(_, entry)| entry.dtype == dtype).count();
    assert_eq!((count("Q4_0"), count("Q6_K"), count("F32")), (4, 4, 3));
}
