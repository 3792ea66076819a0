//! `wgpt quantize`: writes a quantised GGUF file.

use super::{
    hub::located,
    interrupt, say_quantized,
    terminal::{Terminal, Unit},
};
use crate::{
    error::Result,
    quantize::{Written, quantize},
    weights::Format,
};
use clap::Args;
use std::{path::PathBuf, str::FromStr};

#[derive(Args)]
pub struct Quantize {
    /// The model: a .gguf file, a Hugging Face folder or a name on the Hub, of the family gpt2 or llama
    #[arg(value_name = "IN")]
    from: String,
    /// The file to write, in the place of one that is there
    #[arg(value_name = "OUT.gguf")]
    output: PathBuf,
    /// What matrices are packed as; embedding and head finer, norms and biases f32
    #[arg(long, value_name = "FORMAT", value_parser = Format::from_str)]
    format: Format,
    /// Write the file even where its tokenizer differs from the model's own
    #[arg(long)]
    force: bool,
}

impl Quantize {
    pub fn run(&self, terminal: &Terminal) -> Result<()> {
        let from = located(&self.from, terminal)?.path;
        let bar = terminal.progress("quantising", Unit::Bytes);
        interrupt::watch();
        let written = quantize(&from, self.format, &self.output, self.force, &|bytes, total| {
            bar.advance(bytes, total);
            !interrupt::interrupted()
        });
        drop(bar);
        if interrupt::interrupted() {
            return Ok(());
        }
        let Written { quantized, unsaid } = written?;
        say_quantized(self.format, quantized, terminal);
        if let Some(unsaid) = unsaid {
            terminal.say(format_args!(
                "warning: some texts become other tokens than the model's own: a GGUF file cannot say of a \
                 tokenizer: {unsaid}"
            ));
        }
        Ok(())
    }
}
