//! Continues a text, piece by piece: `cargo run --release --example generate [MODEL [PROMPT]]`. MODEL is a
//! folder, a .gguf file or a name on the Hub.

use std::io::Write;
use wgpt::{LanguageModel, Request};

fn main() -> wgpt::error::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let mut model = match arguments.next() {
        Some(name) => LanguageModel::open(&name)?,
        None => LanguageModel::built_in()?,
    };
    let prompt = arguments.next().unwrap_or_else(|| "Once upon a time".to_owned());
    eprintln!("{} on {}", model.model.name, model.engine.device().name);

    let mut text = model.generate(&prompt, &Request { max_tokens: 40, ..Request::default() })?;
    for piece in &mut text {
        print!("{}", piece?);
        std::io::stdout().flush().expect("stdout is open");
    }
    println!();
    let timing = text.timing();
    eprintln!("{} tokens in {:.2} s", timing.decode_tokens, timing.decode.as_secs_f64());
    Ok(())
}
