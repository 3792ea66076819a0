//! `wgpt quantize`: writes a quantised GGUF file.

use super::{
    hub::located,
    interrupt, say_quantized,
    terminal::{Terminal, Unit},
};
use crate::{error::Result, quantize::quantize, weights::Format};
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
}

impl Quantize {
    pub fn run(&self, terminal: &Terminal) -> Result<()> {
        let from = located(&self.from, terminal)?.path;
        let bar = terminal.progress("quantising", Unit::Bytes);
        interrupt::watch();
        let quantized = quantize(&from, self.format, &self.output, &|bytes, total| {
            bar.advance(bytes, total);
            !interrupt::interrupted()
        });
        drop(bar);
        if interrupt::interrupted() {
            return Ok(());
        }
        say_quantized(self.format, quantized?, terminal);
        Ok(())
    }
}
