//! `wgpt pull`, `wgpt list`, `wgpt rm`: models of the Hub on this machine.

use super::{
    terminal,
    terminal::{Terminal, Unit},
};
use crate::{
    error::{Error, Result},
    hub::{Hub, Located, Name, locate},
};
use clap::Args;
use indicatif::DecimalBytes;
use std::fmt::Write;

#[derive(Args)]
pub struct Pull {
    /// owner/name, or owner/name:quantisation, or owner/name:file.gguf
    #[arg(value_name = "NAME", value_parser = parse)]
    name: Name,
}

#[derive(Args)]
pub struct List {
    /// One JSON object for each model
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
pub struct Remove {
    /// A name from `wgpt list`
    #[arg(value_name = "NAME", value_parser = parse)]
    name: Name,
}

fn parse(text: &str) -> Result<Name> {
    Name::parse(text).ok_or_else(|| {
        Error::request("a name on the Hub reads owner/name, owner/name:quantisation or owner/name:file.gguf")
    })
}

impl Pull {
    pub fn run(&self, terminal: &Terminal) -> Result<()> {
        let bar = terminal.progress("fetching", Unit::Bytes);
        let path = Hub::from_env()?.pull(
            &self.name,
            &|text| terminal.say(format_args!("{text}")),
            &|new, all| bar.advance(new, all),
        )?;
        drop(bar);
        terminal.say(format_args!("{} is here, as new as there is", self.name));
        terminal::write(format_args!("{}\n", path.display())).map(|_| ())
    }
}

impl List {
    pub fn run(&self, terminal: &Terminal) -> Result<()> {
        let models = Hub::from_env()?.list()?;
        if self.json {
            return models.iter().try_for_each(terminal::write_json);
        }
        if models.is_empty() {
            terminal.say(format_args!("no models yet: wgpt pull owner/name fetches one"));
        }
        let width = models.iter().map(|model| model.name.chars().count()).max().unwrap_or(0);
        let mut text = String::new();
        for model in models {
            let size = DecimalBytes(model.size_bytes).to_string();
            let note = if model.complete { "" } else { "  not all of it: wgpt pull fetches the rest" };
            writeln!(text, "{:width$}  {size:>10}{note}", model.name).expect("a string");
        }
        terminal::write(text).map(|_| ())
    }
}

impl Remove {
    pub fn run(&self, terminal: &Terminal) -> Result<()> {
        let bytes = Hub::from_env()?.remove(&self.name)?;
        terminal.say(format_args!("{} is removed: {}", self.name, DecimalBytes(bytes)));
        Ok(())
    }
}

/// Locates a model by path or name. Downloads it where necessary, with a progress bar.
pub fn located(model: &str, terminal: &Terminal) -> Result<Located> {
    let bar = terminal.progress("fetching", Unit::Bytes);
    locate(model, &|text| terminal.say(format_args!("{text}")), &|new, all| bar.advance(new, all))
}
