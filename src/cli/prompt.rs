//! Reads the prompt from an argument, a file or stdin.

use super::terminal::Terminal;
use crate::{
    error::{Error, Result},
    model::Model,
    tokenizer::Tokenizer,
};
use clap::Args;
use std::{
    io::{IsTerminal, Read},
    path::{Path, PathBuf},
};

#[derive(Args)]
pub struct PromptArgs {
    /// The text to continue; it may name special tokens. Absent, and no other prompt given: stdin
    #[arg(conflicts_with_all = ["prompt_file", "prompt_tokens"])]
    prompt: Option<String>,
    /// A file that holds the prompt, taken as it is
    #[arg(long, value_name = "FILE", conflicts_with = "prompt_tokens")]
    prompt_file: Option<PathBuf>,
    /// The prompt as token ids, used verbatim: 1,2,3
    #[arg(long, value_name = "IDS", value_delimiter = ',',
        value_parser = |id: &str| id.trim().parse::<u32>())]
    prompt_tokens: Option<Vec<u32>>,
    /// Add no special tokens to the prompt
    #[arg(long)]
    raw: bool,
}

impl PromptArgs {
    /// The prompt's token ids. An empty prompt becomes the model's start token, if it has one.
    pub fn tokens(&self, model: &Model, tokenizer: &Tokenizer, terminal: &Terminal) -> Result<Vec<u32>> {
        if let Some(tokens) = &self.prompt_tokens {
            return Ok(tokens.clone());
        }
        let text = match (&self.prompt, &self.prompt_file) {
            (Some(text), _) => text.clone(),
            (_, Some(path)) => read_text("--prompt-file", path)?,
            _ => {
                let mut bytes = Vec::new();
                if std::io::stdin().is_terminal() {
                    terminal.say(format_args!("the prompt, from stdin; Ctrl-D ends it:"));
                }
                std::io::stdin()
                    .read_to_end(&mut bytes)
                    .map_err(|e| Error::request(format!("stdin cannot be read: {e}")).because(e))?;
                utf8("the prompt on stdin", bytes)?
            }
        };
        let tokens = tokenizer.encode(&text, !self.raw)?;
        Ok(if self.raw { tokens } else { model.begun(tokens) })
    }
}

/// Reads a UTF-8 text file. `flag` is the flag that names it, for errors.
pub fn read_text(flag: &str, path: &Path) -> Result<String> {
    let name = path.display();
    let bytes = std::fs::read(path)
        .map_err(|e| Error::request(format!("{flag}: {name} cannot be read: {e}")).because(e))?;
    utf8(&format!("{flag}: {name}"), bytes)
}

fn utf8(what: &str, bytes: Vec<u8>) -> Result<String> {
    String::from_utf8(bytes).map_err(|e| {
        let at = e.utf8_error().valid_up_to();
        Error::request(format!("{what} is not UTF-8 text: byte {at} is not part of a character")).because(e)
    })
}
