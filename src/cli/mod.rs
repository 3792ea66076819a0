//! The command line. stdout holds only the answer; everything else goes to stderr.

mod bench;
mod chat;
mod devices;
mod generate;
mod hub;
mod inspect;
mod interrupt;
mod lines;
mod llama_server;
mod memory;
mod perplexity;
mod plan;
mod prompt;
mod quantize;
mod sampling;
mod serve;
mod stats;
mod terminal;
mod verify;
mod words;

pub use memory::SystemOrExit;

use crate::{
    backend::{Device, DeviceChoice, GpuOptions},
    engine::{Engine, EngineOptions},
    error::Result,
    hub::Located,
    kv_format::KvFormat,
    model::Model,
    simd::Math,
    tokenizer::Tokenizer,
    weights::{Format, Quantized},
};
use clap::{Args, CommandFactory, Parser, Subcommand};
use hub::located;
use std::{path::PathBuf, process::ExitCode, str::FromStr};
use terminal::{Terminal, Unit};

const ENVIRONMENT: &str = "\
Environment:
  HF_HOME         where models of the Hub lie [default: ~/.cache/huggingface]
  HF_TOKEN        what opens private and gated models
  HF_ENDPOINT     the Hub [default: https://huggingface.co]
  HF_HUB_OFFLINE  1: stay off the network
  NO_COLOR        no colours";

/// Language models on any GPU that Vulkan, Metal or DX12 reaches, and on the CPU.
#[derive(Parser)]
#[command(
    name = "wgpt",
    version = env!("WGPT_VERSION"),
    propagate_version = true,
    max_term_width = 100,
    after_help = ENVIRONMENT
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
    #[command(flatten)]
    verbosity: Verbosity,
    /// Stay off the network, as HF_HUB_OFFLINE=1 says it
    #[arg(long, global = true)]
    offline: bool,
}

#[derive(Args, Clone, Copy)]
struct Verbosity {
    /// Say more: the causes of an error, what is loaded
    #[arg(short, long, global = true)]
    verbose: bool,
    /// Say nothing but errors
    #[arg(long, global = true, conflicts_with = "verbose")]
    quiet: bool,
}

#[derive(Subcommand)]
enum Command {
    /// Continue a prompt, streaming the continuation to stdout
    Generate(generate::Generate),
    /// Talk with a model, through its chat template
    Chat(chat::Chat),
    /// Serve a model over HTTP: OpenAI's, Anthropic's and llama-server's APIs, and a page to chat
    Serve(serve::Serve),
    /// Tokens per second
    Bench(bench::Bench),
    /// How well the model predicts a text
    Perplexity(perplexity::Perplexity),
    /// Write a quantised GGUF file
    Quantize(quantize::Quantize),
    /// Fetch a model from the Hub, or what is newer of it; where it is goes to stdout
    Pull(hub::Pull),
    /// The models that were fetched
    List(hub::List),
    /// Remove a model that was fetched
    Rm(hub::Remove),
    /// The devices there are, and which would be chosen
    Devices(devices::Devices),
    /// Whether a device computes right: every kernel against its definition
    Verify(verify::Verify),
    /// What a model will take and what will run, before loading
    Plan(plan::Plan),
    /// What is in a checkpoint, or goes on in a model while it reads a prompt
    Inspect(inspect::Inspect),
    /// What a shell needs to complete the command line: `source <(wgpt completions bash)`
    Completions {
        #[arg(value_enum)]
        shell: clap_complete::Shell,
    },
    /// The manual page: `wgpt man > wgpt.1`
    Man,
}

/// Which model, where, and how it computes.
#[derive(Args, Clone)]
struct ModelArgs {
    /// A .gguf file; or a Hugging Face folder: config.json, *.safetensors, a tokenizer; or a name on the Hub:
    /// owner/name, owner/name:Q4_K_M. Default: the small model built in
    #[arg(short, long, value_name = "MODEL", alias = "hf-repo")]
    model: Option<String>,
    #[command(flatten)]
    device: DeviceArgs,
    #[command(flatten)]
    exactness: Exactness,
    /// Pack the weights as this format while loading: q8_0, q6_k, q5_k, q4_k, q4_0, … f16
    #[arg(long, value_name = "FORMAT", value_parser = Format::from_str)]
    quantize: Option<Format>,
    /// The most tokens of prompt and answer together. Default: the smaller of the model's context and 4096
    #[arg(short, long, value_name = "TOKENS", alias = "ctx-size")]
    ctx: Option<u32>,
    #[command(flatten)]
    adapters: AdapterArgs,
}

/// Low-rank adapters of the weights.
#[derive(Args, Clone)]
struct AdapterArgs {
    /// A low-rank adapter (LoRA) of the model: a folder of PEFT's, or a .gguf file for a .gguf model; may be
    /// given again
    #[arg(long, value_name = "ADAPTER", value_delimiter = ',')]
    lora: Vec<PathBuf>,
    /// Such an adapter, and what its change of the weights is multiplied by
    #[arg(long, value_name = "ADAPTER:SCALE", value_delimiter = ',', value_parser = scaled)]
    lora_scaled: Vec<(PathBuf, f32)>,
}

fn scaled(text: &str) -> Result<(PathBuf, f32), String> {
    let parts = text.rsplit_once(':').and_then(|(path, scale)| Some((path, scale.parse::<f32>().ok()?)));
    match parts.filter(|(path, scale)| !path.is_empty() && scale.is_finite()) {
        Some((path, scale)) => Ok((path.into(), scale)),
        None => Err("an adapter's path, a colon and a number belong there".to_owned()),
    }
}

impl AdapterArgs {
    fn apply(&self, model: &mut Model) -> Result<()> {
        let whole = self.lora.iter().map(|path| (path, 1.0));
        let scaled = self.lora_scaled.iter().map(|(path, scale)| (path, *scale));
        whole.chain(scaled).try_for_each(|(path, scale)| model.adapt(path, scale))
    }
}

/// How exactly to compute.
#[derive(Args, Clone, Copy)]
struct Exactness {
    /// How exactly to compute: all in f32, or faster where there is a faster form. Default: fast, and f32 for
    /// perplexities
    #[arg(long, value_enum)]
    math: Option<Math>,
    /// How the cache stores keys and values: f32, f16, q8_0, q4_0. Default: f16, and f32 with --math f32
    #[arg(long, value_name = "TYPE", value_parser = KvFormat::from_str)]
    cache_type: Option<KvFormat>,
}

impl Exactness {
    /// Sets up a device. `math` counts where none is asked for.
    fn of(self, device: Device, math: Math) -> Device {
        let device = device.with_math(self.math.unwrap_or(math));
        match self.cache_type {
            Some(format) => device.with_kv_format(format),
            None => device,
        }
    }
}

/// Which device, and how it is opened.
#[derive(Args, Clone)]
struct DeviceArgs {
    /// auto, cpu, gpu, or a number or part of a name from `wgpt devices`; vulkan, metal, dx12 or gl, alone or
    /// before a colon and a name (dx12:4090), for one API only
    #[arg(long, default_value = "auto")]
    device: String,
    /// Fail rather than run on the CPU
    #[arg(long)]
    require_gpu: bool,
    /// CPU threads. Default: one for each physical core
    #[arg(short, long, value_parser = clap::value_parser!(u16).range(1..=512))]
    threads: Option<u16>,
    /// Keep the GPU's bounds checks: slower, for finding faults
    #[arg(long)]
    checked: bool,
}

impl DeviceArgs {
    fn open(&self) -> Result<Device> {
        self.open_with(self.options())
    }

    fn options(&self) -> GpuOptions {
        GpuOptions { checked: self.checked, keep_pipelines: true, ..GpuOptions::default() }
    }

    fn open_with(&self, gpu: GpuOptions) -> Result<Device> {
        let choice = DeviceChoice::from(self.device.as_str());
        Device::open(&choice, self.require_gpu, self.threads.map(usize::from), gpu)
    }
}

/// Says how many matrices a quantisation packs, and how many differ from the requested format.
fn say_quantized(to: Format, quantized: Quantized, terminal: &Terminal) {
    let Quantized { packed, fallbacks, kept } = quantized;
    let mut text = format!("quantising {packed} matrices to {}", to.name());
    if fallbacks > 0 {
        text += &format!(", {fallbacks} of them to a format with smaller blocks, which their rows need");
    }
    if kept > 0 {
        text += &format!(", {kept} stay as they are: they are in fewer bits already");
    }
    terminal.say(format_args!("{text}"));
}

/// Opens a model without its tokenizer, set to be quantised if asked.
fn open_weights(name: Option<&str>, quantize: Option<Format>, terminal: &Terminal) -> Result<Model> {
    let mut model = match name {
        None => Model::built_in()?.0,
        Some(name) => {
            let Located { path, name } = located(name, terminal)?;
            named(Model::open_weights(&path)?, name)
        }
    };
    if let Some(to) = quantize {
        say_quantized(to, model.quantize(to), terminal);
    }
    Ok(model)
}

/// Renames a model to the name it was asked for by.
fn named(model: Model, name: Option<String>) -> Model {
    Model { name: name.unwrap_or(model.name), ..model }
}

impl ModelArgs {
    /// Opens the model and its tokenizer.
    fn open(&self, terminal: &Terminal) -> Result<(Model, Tokenizer)> {
        let (mut model, tokenizer) = match &self.model {
            None => Model::built_in()?,
            Some(name) => {
                let Located { path, name } = located(name, terminal)?;
                let (model, tokenizer) = Model::open(&path)?;
                (named(model, name), tokenizer)
            }
        };
        let (known, vocab_size) = (tokenizer.vocab_size(), model.architecture.vocab_size);
        if known > vocab_size as usize {
            tracing::warn!(
                "the tokenizer knows {known} tokens, but the model {vocab_size}: some texts cannot be run"
            );
        }
        if let Some(to) = self.quantize {
            say_quantized(to, model.quantize(to), terminal);
        }
        self.adapters.apply(&mut model)?;
        Ok((model, tokenizer))
    }

    /// Opens the model without its tokenizer.
    fn open_weights(&self, terminal: &Terminal) -> Result<Model> {
        let mut model = open_weights(self.model.as_deref(), self.quantize, terminal)?;
        self.adapters.apply(&mut model)?;
        Ok(model)
    }

    /// Opens the device and loads the model onto it. Says which device it is and why.
    fn load(&self, model: &Model, options: EngineOptions, terminal: &Terminal) -> Result<Engine> {
        // Scores are compared with each other, so they are computed exactly.
        let is_exact = options.scores || options.insight;
        let math = if is_exact { Math::F32 } else { Math::Fast };
        let device = self.exactness.of(self.device.open()?, math);
        let info = device.info();
        terminal.say(format_args!("{} on {} ({}): {}", model.name, info.name, info.backend, device.reason));
        let bar = terminal.progress("loading", Unit::Bytes);
        let options = EngineOptions { context: options.context.or(self.ctx), ..options };
        Engine::load(model, device, options, &|bytes, total| bar.advance(bytes, total))
    }
}

/// Runs the program; returns its exit code.
pub fn main() -> ExitCode {
    // Mesa's Vulkan layer that chooses a device for programs that take the first one. It looks for a display,
    // and complains on stderr where there is none; wgpt chooses among all devices itself.
    // SAFETY: no other thread runs yet.
    unsafe { std::env::set_var("NODEVICE_SELECT", "1") };
    let cli = Cli::parse_from(std::env::args_os().map(llama_server::parsed_as));
    if cli.offline {
        // SAFETY: no other thread runs yet.
        unsafe { std::env::set_var("HF_HUB_OFFLINE", "1") };
    }
    let terminal = Terminal::new(cli.verbosity);
    interrupt::install();
    let result = match &cli.command {
        Command::Generate(command) => command.run(&terminal),
        Command::Chat(command) => command.run(&terminal),
        Command::Serve(command) => command.run(&terminal),
        Command::Bench(command) => command.run(&terminal),
        Command::Perplexity(command) => command.run(&terminal),
        Command::Quantize(command) => command.run(&terminal),
        Command::Pull(command) => command.run(&terminal),
        Command::List(command) => command.run(&terminal),
        Command::Rm(command) => command.run(&terminal),
        Command::Devices(command) => command.run(&terminal),
        Command::Verify(command) => command.run(&terminal),
        Command::Plan(command) => command.run(&terminal),
        Command::Inspect(command) => command.run(&terminal),
        Command::Completions { shell } => completions(*shell),
        Command::Man => manual(),
    };
    match result {
        _ if interrupt::interrupted() => ExitCode::from(interrupt::EXIT_CODE),
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            terminal.fail(&error);
            ExitCode::from(error.exit_code())
        }
    }
}

fn completions(shell: clap_complete::Shell) -> Result<()> {
    let mut text = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "wgpt", &mut text);
    terminal::write(String::from_utf8_lossy(&text)).map(|_| ())
}

/// Writes the manual page of the program, followed by one page for each command.
fn manual() -> Result<()> {
    let mut text = Vec::new();
    let mut program = Cli::command();
    program.build();
    let pages = program.get_subcommands().filter(|command| !command.is_hide_set());
    for page in std::iter::once(&program).chain(pages) {
        clap_mangen::Man::new(page.clone()).render(&mut text).expect("writing to memory");
    }
    terminal::write(String::from_utf8_lossy(&text)).map(|_| ())
}
