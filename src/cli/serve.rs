//! `wgpt serve`: the HTTP server.

use super::{
    ModelArgs, interrupt,
    llama_server::WithoutEffect,
    terminal::{Terminal, write_stderr},
};
use crate::{
    embedding::Pooling,
    engine::{EngineOptions, Sleep},
    error::{Error, Result},
    kv_format::KvFormat,
    serve::{Loaded, Options, serve},
};
use clap::{Args, ValueEnum};
use std::{fs, path::PathBuf, str::FromStr, sync::Arc, time::Duration};

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
    #[arg(short, long, visible_alias = "served-model-name", value_name = "NAME")]
    alias: Option<String>,
    /// How many sequences run at once
    #[arg(long, default_value_t = 4, value_name = "N",
        value_parser = clap::value_parser!(u32).range(1..=1024))]
    parallel: u32,
    /// How many blocks of 32 positions the cache has for all sequences together. Default: as many as the
    /// sequences can need
    #[arg(long, value_name = "N")]
    cache_blocks: Option<u32>,
    /// How many MiB of this machine's memory keep prompts that have no room left in the cache, so that they
    /// need not be read again; -1: as many as come. Default: none
    #[arg(long, default_value_t = 0, value_name = "MIB", value_parser = clap::value_parser!(i64).range(-1..),
        allow_negative_numbers = true)]
    cache_ram: i64,
    /// How many tokens of prompts run in one step, beside which answers wait. Default: 128; 256 for small
    /// models on the CPU, 512 where the device is fast
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
    /// A key that opens the server, or several with commas between them; may be given again. Default: it is
    /// open
    #[arg(long, value_name = "KEY", value_delimiter = ',')]
    api_key: Vec<String>,
    /// A file with such keys, one a line; lines that begin with # are comments
    #[arg(long, value_name = "FILE")]
    api_key_file: Option<PathBuf>,
    /// Pages that browsers let ask this server, by their origins: a list, `*` for all, `localhost` for those
    /// of this machine. Default: its own page alone
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    cors_origins: Vec<String>,
    /// Hosts from which images in requests are fetched by their addresses: a list, `*` for all; never from
    /// this machine or its network. Default: none are fetched
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    image_hosts: Vec<String>,
    /// The most tokens of an answer where a request does not say it; -1, the default: to the end of the
    /// context
    #[arg(short = 'n', long, visible_alias = "n-predict", alias = "predict", value_name = "TOKENS",
        value_parser = clap::value_parser!(i64).range(-1..), allow_negative_numbers = true)]
    max_tokens: Option<i64>,
    /// How adventurous where a request does not say it
    #[arg(long, visible_alias = "temp", value_name = "T", allow_negative_numbers = true)]
    temperature: Option<f32>,
    /// Where a request does not say it: consider only the K most probable tokens; 0: all
    #[arg(long, value_name = "K")]
    top_k: Option<u32>,
    /// Where a request does not say it: consider only the fewest tokens whose probabilities reach P
    #[arg(long, value_name = "P", allow_negative_numbers = true)]
    top_p: Option<f32>,
    /// Where a request does not say it: consider only tokens at least P times as probable as the best
    #[arg(long, value_name = "P", allow_negative_numbers = true)]
    min_p: Option<f32>,
    /// Where a request does not say it: divide the logits of tokens that were there before
    #[arg(long, value_name = "X", allow_negative_numbers = true)]
    repeat_penalty: Option<f32>,
    /// Where a request does not say it: take this off a token's logit if it was there
    #[arg(long, value_name = "X", allow_negative_numbers = true)]
    presence_penalty: Option<f32>,
    /// Where a request does not say it: take this off a token's logit for each time that it was there
    #[arg(long, value_name = "X", allow_negative_numbers = true)]
    frequency_penalty: Option<f32>,
    /// What chance starts from where a request does not say it; -1, the default: random
    #[arg(short, long, allow_negative_numbers = true)]
    seed: Option<i64>,
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
    /// The folder for prompts that `POST /slots/{id}?action=save` saves. Default: none can be saved
    #[arg(long, value_name = "FOLDER")]
    slot_save_path: Option<PathBuf>,
    /// Go on where a context is full, without the older half of its tokens, which reads the rest again
    #[arg(long, overrides_with = "no_context_shift")]
    context_shift: bool,
    /// End where a context is full: the default
    #[arg(long, hide = true)]
    no_context_shift: bool,
    /// Put the model away when nobody has asked for anything for so long, and load it again for the next
    /// request; -1, the default: never
    #[arg(long, value_name = "SECONDS", value_parser = seconds_or_never, allow_negative_numbers = true)]
    sleep_idle_seconds: Option<Duration>,
    /// Let no adapter apply before `POST /lora-adapters` or a request says how much
    #[arg(long)]
    lora_init_without_apply: bool,
    /// No page at /
    #[arg(long, alias = "no-webui")]
    no_ui: bool,
    /// llama-server's number of layers on the GPU. 0: the CPU; else all are on the device
    #[arg(long, hide = true, alias = "n-gpu-layers", allow_negative_numbers = true)]
    gpu_layers: Option<String>,
    /// llama-server's formats of keys and of values, which are one here: see --cache-type
    #[arg(long, hide = true, value_parser = KvFormat::from_str, conflicts_with = "cache_type")]
    cache_type_k: Option<KvFormat>,
    #[arg(long, hide = true, value_parser = KvFormat::from_str, conflicts_with = "cache_type")]
    cache_type_v: Option<KvFormat>,
    #[command(flatten)]
    _without_effect: WithoutEffect,
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

fn seconds_or_never(text: &str) -> Result<Duration, String> {
    match text {
        "-1" => Ok(Duration::MAX),
        text => seconds(text).map(Duration::from_secs_f64),
    }
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
        let (mut command, terminal) = (self.clone(), *terminal);
        let device = &mut command.model.device.device;
        if device == "auto" && self.gpu_layers.as_deref() == Some("0") {
            "cpu".clone_into(device);
        }
        if self.cache_type_k.is_some() || self.cache_type_v.is_some() {
            let [keys, values] =
                [self.cache_type_k, self.cache_type_v].map(|format| format.unwrap_or(KvFormat::F16));
            if keys != values {
                return Err(Error::request(format!(
                    "--cache-type-k is {} and --cache-type-v {}, but keys and values have one format: give \
                     --cache-type",
                    keys.name(),
                    values.name()
                )));
            }
            command.model.exactness.cache_type = Some(keys);
        }
        let load = move || {
            let (mut model, tokenizer) = command.model.open(&terminal)?;
            if command.lora_init_without_apply {
                model.adapters.iter_mut().for_each(|adapter| adapter.scale = 0.0);
            }
            let model = Arc::new(model);
            let most = model.architecture.max_positions;
            if let Some(asked) = command.model.ctx.filter(|asked| *asked > most) {
                terminal.say(format_args!(
                    "--ctx is {asked}, but the model was made for at most {most}, which is taken"
                ));
            }
            let options = command.engine_options(most);
            let engine = command.model.load(&model, options, &terminal)?;
            terminal.say(format_args!(
                "ready: {} sequences of up to {} tokens",
                command.parallel,
                engine.context()
            ));
            let again = model.clone();
            let sleep = command.sleep_idle_seconds.filter(|after| *after < Duration::MAX);
            let sleep = sleep.map(|after| Sleep {
                after,
                load: Box::new(move || command.model.load(&again, options, &terminal)),
            });
            Ok(Loaded { model, tokenizer, engine, sleep })
        };
        interrupt::watch();
        // Said even where nothing else is: who starts a server waits for it.
        let listening = |address| write_stderr(format_args!("listening on http://{address}\n"));
        serve(options, load, listening, interrupt::interrupted)
    }

    /// `most`: the most positions that the model was made for.
    fn engine_options(&self, most: u32) -> EngineOptions {
        EngineOptions {
            // 0 is llama-server's word for all that the model can hold.
            context: self.model.ctx.filter(|asked| *asked == 0 || *asked > most).map(|_| most),
            sequences: Some(self.parallel),
            chunk: self.prefill_chunk,
            kept_bytes: u64::try_from(self.cache_ram).map_or(u64::MAX, |mib| mib.saturating_mul(1 << 20)),
            guess: self.spec_type == SpecType::Ngram,
            cache: self.cache_blocks.map(|blocks| blocks.saturating_mul(crate::buffers::BLOCK)),
            ..EngineOptions::default()
        }
    }

    fn options(&self) -> Result<Options> {
        let read = |flag: &str, path: &PathBuf| {
            fs::read_to_string(path).map_err(|e| {
                Error::request(format!("{flag}: {} cannot be read: {e}", path.display())).because(e)
            })
        };
        if let Some(folder) = self.slot_save_path.as_ref().filter(|folder| !folder.is_dir()) {
            return Err(Error::request(format!(
                "--slot-save-path: {} is not a folder: create it",
                folder.display()
            )));
        }
        let mut api_keys = self.api_key.clone();
        if let Some(path) = &self.api_key_file {
            let text = read("--api-key-file", path)?;
            let is_key = |line: &&str| !line.is_empty() && !line.starts_with('#');
            api_keys.extend(text.lines().map(str::trim).filter(is_key).map(str::to_owned));
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
            model: self.model.model.clone().unwrap_or_default(),
            alias: self.alias.clone(),
            max_queue: self.max_queue,
            max_body: self.max_body << 20,
            api_keys,
            cors_origins: self.cors_origins.iter().map(|origin| origin.trim().to_owned()).collect(),
            image_hosts: self.image_hosts.iter().map(|host| host.trim().to_owned()).collect(),
            max_tokens: self.max_tokens.and_then(|count| count.try_into().ok()),
            temperature: self.temperature,
            top_k: self.top_k,
            top_p: self.top_p,
            min_p: self.min_p,
            repeat_penalty: self.repeat_penalty,
            presence_penalty: self.presence_penalty,
            frequency_penalty: self.frequency_penalty,
            seed: self.seed.filter(|seed| *seed != -1).map(|seed| seed as u64),
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
            slot_save_path: self.slot_save_path.clone(),
            shifts_context: self.context_shift,
        })
    }
}
