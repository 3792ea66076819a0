//! A conversation in which the model does not read earlier turns again: `cargo run --release --example chat
//! [MODEL]`.

use std::io::Write;
use wgpt::{LanguageModel, Request, chat::Message, sampling::Sampling};

fn main() -> wgpt::error::Result<()> {
    let mut model = match std::env::args().nth(1) {
        Some(name) => LanguageModel::open(&name)?,
        None => LanguageModel::built_in()?,
    };
    let request = Request { sampling: Sampling::GREEDY, max_tokens: 30, ..Request::default() };
    let mut conversation = model.chat(request)?;
    conversation.said.push(Message::new("system", "You tell stories."));
    for question in ["Who is Lily?", "And what did she do then?"] {
        println!("> {question}");
        let mut answer = conversation.say(question)?;
        for piece in &mut answer {
            print!("{}", piece?);
            std::io::stdout().flush().expect("stdout is open");
        }
        println!();
        eprintln!("{} new tokens were read", answer.text().timing().prefill_tokens);
    }
    eprintln!("{} messages", conversation.said.len());
    Ok(())
}
