//! `wgpt serve`: the HTTP server.

use super::{
    ModelArgs, interrupt,
    terminal::{Terminal, write_stderr},
};
use crate::{
    embedding::Pooling,
    engine::EngineOptions,
    error::{Error, Result},
    serve::{Options, serve},
};
use clap::{Args, ValueEnum};
use std::{ffi::OsString, fs, path::PathBuf, time::Duration};

#[derive(Args, Clone)]
pub struct Serve {
    #[command(flatten)]
    model: ModelArgs,
    /// The address to listen at: 0.0.0.0 for all of this machine's
    #[arg(long, default_value = "127.0.0.1")]
    host: String,
    /// The port; 0: any that is free
    #[arg(long, default_value_t = 8080)]
    port: u16,
    /// The model's name in answers. Default: its own
    #[arg(long, visible_alias = "served-model-name", value_name = "NAME")]
    alias: Option<String>,
    /// How many sequences run at once
    #[arg(long, default_value_t = 4, value_name = "N",
        value_parser = clap::value_parser!(u32).range(1..=1024))]
    parallel: u32,
    /// How many blocks of 32 positions the cache has for all sequences together. Default: as many as the
    /// sequences can need
    #[arg(long, value_name = "N")]
    cache_blocks: Option<u32>,
    /// How many tokens of prompts run in one step, beside which answers wait. Default: 128, or 512 where the
    /// device is fast
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=4096))]
    prefill_chunk: Option<u32>,
    /// Whether to guess tokens from what came before in a text, which makes texts that repeat themselves
    /// faster and changes none
    #[arg(long, value_enum, default_value = "ngram")]
    spec_type: SpecType,
    /// How many sequences may wait; beyond them requests are refused with 429
    #[arg(long, default_value_t = 64, value_name = "N")]
    max_queue: usize,
    /// The largest body of a request, in MiB
    #[arg(long, default_value_t = 64, value_name = "MIB")]
    max_body: usize,
    /// A key that opens the server; may be given again. Default: it is open
    #[arg(long, value_name = "KEY")]
    api_key: Vec<String>,
    /// A file with such keys, one a line
    #[arg(long, value_name = "FILE")]
    api_key_file: Option<PathBuf>,
    /// Pages that browsers let ask this server, by their origins: a list, `*` for all, `localhost` for those
    /// of this machine. Default: its own page alone
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    cors_origins: Vec<String>,
    /// The most tokens of an answer where a request does not say it. Default: to the end of the context
    #[arg(short = 'n', long, visible_alias = "n-predict", value_name = "TOKENS")]
    max_tokens: Option<usize>,
    /// How adventurous where a request does not say it
    #[arg(long, visible_alias = "temp", value_name = "T")]
    temperature: Option<f32>,
    /// What chance starts from where a request does not say it. Default: random
    #[arg(long)]
    seed: Option<u64>,
    /// A chat template in place of the model's own
    #[arg(long, value_name = "TEMPLATE", conflicts_with = "chat_template_file")]
    chat_template: Option<String>,
    /// A file with such a template
    #[arg(long, value_name = "FILE")]
    chat_template_file: Option<PathBuf>,
    /// How hidden states become an embedding where a request does not say it. Default: as the model's files
    /// say
    #[arg(long, value_enum)]
    pooling: Option<PoolingArg>,
    /// How many seconds requests may run on after SIGTERM
    #[arg(long, default_value_t = 30.0, value_name = "SECONDS", value_parser = seconds)]
    drain_timeout: f64,
    /// Answer /metrics: the default
    #[arg(long, overrides_with = "no_metrics")]
    metrics: bool,
    /// Do not answer /metrics
    #[arg(long)]
    no_metrics: bool,
    /// Answer /slots: the default
    #[arg(long, overrides_with = "no_slots")]
    slots: bool,
    /// Do not answer /slots
    #[arg(long)]
    no_slots: bool,
    /// No page at /
    #[arg(long)]
    no_ui: bool,
}

/// llama-server's short names of more than one letter as the long ones, which is how they are parsed here.
pub fn long_name(argument: OsString) -> OsString {
    match argument.to_str() {
        Some("-np") => "--parallel".into(),
        Some("-hf" | "-hfr") => "--hf-repo".into(),
        _ => argument,
    }
}

#[derive(Clone, Copy, PartialEq, ValueEnum)]
enum SpecType {
    None,
    Ngram,
}

#[derive(Clone, Copy, ValueEnum)]
enum PoolingArg {
    Mean,
    Last,
    Cls,
}

fn seconds(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(seconds) if (0.0..=86_400.0).contains(&seconds) => Ok(seconds),
        _ => Err("seconds from 0 to 86400 belong there".to_owned()),
    }
}

impl Serve {
    pub fn run(&self, terminal: &Terminal) -> Result<()> {
        let options = self.options()?;
        let (command, terminal) = (self.clone(), *terminal);
        let load = move || {
            let (model, tokenizer) = command.model.open(&terminal)?;
            let options = EngineOptions {
                sequences: Some(command.parallel),
                chunk: command.prefill_chunk,
                guess: command.spec_type == SpecType::Ngram,
                cache: command.cache_blocks.map(|blocks| blocks.saturating_mul(crate::buffers::BLOCK)),
                ..EngineOptions::default()
            };
            let engine = command.model.load(&model, options, &terminal)?;
            terminal.say(format_args!(
                "ready: {} sequences of up to {} tokens",
                command.parallel,
                engine.context()
            ));
            Ok((model, tokenizer, engine))
        };
        interrupt::watch();
        // Said even where nothing else is: who starts a server waits for it.
        let listening = |address| write_stderr(format_args!("listening on http://{address}\n"));
        serve(options, load, listening, interrupt::interrupted)
    }

    fn options(&self) -> Result<Options> {
        let read = |flag: &str, path: &PathBuf| {
            fs::read_to_string(path).map_err(|e| {
                Error::request(format!("{flag}: {} cannot be read: {e}", path.display())).because(e)
            })
        };
        let mut api_keys = self.api_key.clone();
        if let Some(path) = &self.api_key_file {
            let text = read("--api-key-file", path)?;
            api_keys.extend(text.lines().map(str::trim).filter(|line| !line.is_empty()).map(str::to_owned));
            if api_keys.is_empty() {
                return Err(Error::request(format!(
                    "--api-key-file: {} holds no key: write one a line, or leave the flag away",
                    path.display()
                )));
            }
        }
        if api_keys.iter().any(String::is_empty) {
            return Err(Error::request("--api-key is empty: give a key, or leave the flag away"));
        }
        let file = self.chat_template_file.as_ref();
        let file = file.map(|path| read("--chat-template-file", path)).transpose()?;
        Ok(Options {
            host: self.host.clone(),
            port: self.port,
            alias: self.alias.clone(),
            max_queue: self.max_queue,
            max_body: self.max_body << 20,
            api_keys,
            cors_origins: self.cors_origins.iter().map(|origin| origin.trim().to_owned()).collect(),
            max_tokens: self.max_tokens,
            temperature: self.temperature,
            seed: self.seed,
            chat_template: self.chat_template.clone().or(file),
            pooling: self.pooling.map(|pooling| match pooling {
                PoolingArg::Mean => Pooling::Mean,
                PoolingArg::Last => Pooling::Last,
                PoolingArg::Cls => Pooling::Cls,
            }),
            drain_timeout: Duration::from_secs_f64(self.drain_timeout),
            has_metrics: !self.no_metrics,
            has_slots: !self.no_slots,
            has_page: !self.no_ui,
        })
    }
}
