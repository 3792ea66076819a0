//! `wgpt bench`: tokens per second, compared with the device's memory bandwidth.

use super::{
    DeviceArgs, Exactness, open_weights, terminal,
    terminal::{Terminal, Unit},
};
use crate::{
    backend::{Bandwidth, DeviceInfo},
    bench::{Bench as Prepared, Measured, Profiled, Test, TestKind},
    error::{Error, Result},
    shapes,
    simd::Math,
    weights::Format,
};
use clap::{Args, ValueEnum};
use serde::Serialize;
use std::str::FromStr;

#[derive(Args)]
pub struct Bench {
    /// A .gguf file, a Hugging Face folder or a name on the Hub; may be given again. Default: the small model
    /// built in
    #[arg(short, long, value_name = "MODEL", value_delimiter = ',')]
    model: Vec<String>,
    /// A known shape with random weights instead: gpt2, gpt2-medium, gpt2-large, gpt2-xl, smollm2-135m,
    /// llama-3.2-1b, llama-3.2-3b, llama-3.1-8b
    #[arg(long, value_name = "SHAPE", value_delimiter = ',', conflicts_with = "model",
        value_parser = shapes::SHAPES, hide_possible_values = true)]
    shape: Vec<String>,
    /// What matrices are packed as; shapes: f16 where nothing is said, models: as stored
    #[arg(long, value_name = "FORMAT", value_delimiter = ',', value_parser = Format::from_str)]
    format: Vec<Format>,
    #[command(flatten)]
    device: DeviceArgs,
    #[command(flatten)]
    exactness: Exactness,
    /// Tokens of a prompt; 0: no such test
    #[arg(short = 'p', long, value_name = "TOKENS", value_delimiter = ',', default_value = "512")]
    n_prompt: Vec<u32>,
    /// Tokens to generate; 0: no such test
    #[arg(short, long, value_name = "TOKENS", value_delimiter = ',', default_value = "128")]
    n_gen: Vec<u32>,
    /// Positions that are in the cache before
    #[arg(short = 'd', long, value_name = "POSITIONS", value_delimiter = ',', default_value = "0")]
    depth: Vec<u32>,
    /// Sequences at once
    #[arg(short, long, value_name = "SEQUENCES", value_delimiter = ',', default_value = "1",
        value_parser = clap::value_parser!(u32).range(1..=4096))]
    batch: Vec<u32>,
    /// How often each test is run
    #[arg(short, long, value_name = "TIMES", default_value_t = 5,
        value_parser = clap::value_parser!(u32).range(1..))]
    repetitions: u32,
    /// Tell where the time of a step goes, kernel by kernel
    #[arg(long)]
    profile: bool,
    /// How to write the results
    #[arg(short, long, value_enum, default_value_t = Output::Md)]
    output: Output,
}

#[derive(Clone, Copy, PartialEq, ValueEnum)]
enum Output {
    Md,
    Csv,
    Json,
    Jsonl,
}

/// All results for one model.
#[derive(Serialize)]
struct Report {
    model: String,
    params: u64,
    size_bytes: u64,
    format: String,
    math: &'static str,
    device: DeviceInfo,
    driver: String,
    bandwidth_gb_s: f64,
    copy_gb_s: f64,
    load_s: f64,
    compile_s: f64,
    first_token_s: f64,
    results: Vec<Line>,
}

#[derive(Serialize)]
struct Line {
    #[serde(flatten)]
    measured: Measured,
    bandwidth_share: f64,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    profile: Vec<Profiled>,
}

impl Bench {
    pub fn run(&self, terminal: &Terminal) -> Result<()> {
        let tests = self.tests()?;
        let device = self.device.open()?;
        let info = device.info();
        terminal.say(format_args!("measuring {} ({}): {}", info.name, info.backend, device.reason));
        let bandwidth = device.bandwidth()?;
        drop(device);
        let formats = match (self.format.is_empty(), self.shape.is_empty()) {
            (false, _) => self.format.iter().copied().map(Some).collect(),
            (true, false) => vec![Some(Format::F16)],
            (true, true) => vec![None],
        };
        let names = match (self.model.is_empty(), self.shape.is_empty()) {
            (false, _) => &self.model,
            (true, false) => &self.shape,
            (true, true) => &vec![String::new()],
        };
        let mut header = match self.output {
            Output::Md => {
                "| model | size | params | device | test | t/s | GB/s | of the bandwidth | dispatches | \
                 encode + submit |\n\
                 | --- | ---: | ---: | --- | ---: | ---: | ---: | ---: | ---: | ---: |\n"
            }
            Output::Csv => {
                "model,params,size_bytes,format,math,backend,device,driver,bandwidth_gb_s,test,tokens,\
                 tps_mean,tps_sd,gb_s,bandwidth_share,dispatches,encode_us,submit_us\n"
            }
            Output::Json | Output::Jsonl => "",
        };
        for name in names {
            for format in &formats {
                let report = self.measure(name, *format, &tests, bandwidth, terminal)?;
                terminal::write(std::mem::take(&mut header))?;
                self.write(&report)?;
            }
        }
        Ok(())
    }

    fn tests(&self) -> Result<Vec<Test>> {
        let mut tests = Vec::new();
        for &sequences in &self.batch {
            for &depth in &self.depth {
                for (kind, list) in [(TestKind::Prompt, &self.n_prompt), (TestKind::Generate, &self.n_gen)] {
                    let tokens = list.iter().copied().filter(|tokens| *tokens > 0);
                    tests.extend(tokens.map(|tokens| Test { kind, tokens, depth, sequences }));
                }
            }
        }
        match tests.is_empty() {
            true => Err(Error::request("there is nothing to measure: -p and -n are both 0")),
            false => Ok(tests),
        }
    }

    fn measure(
        &self,
        name: &str,
        format: Option<Format>,
        tests: &[Test],
        bandwidth: Bandwidth,
        terminal: &Terminal,
    ) -> Result<Report> {
        let math = self.exactness.math.unwrap_or(Math::Fast);
        let device = self.exactness.of(self.device.open()?, math);
        let (info, driver) = (device.info(), device.driver());
        let model = match self.shape.is_empty() {
            true => open_weights(Some(name).filter(|name| !name.is_empty()), format, terminal)?,
            // A GPU copies every matrix, so equal ones can share their bytes in host memory. On the CPU they
            // would share the processor's cache, so each matrix gets its own bytes.
            false => shapes::model(name, format.unwrap_or(Format::F16), info.backend != "cpu")?,
        };
        if let Some(matrices) = device.matrices().filter(|_| math == Math::Fast) {
            terminal.say(format_args!("{matrices}"));
        }
        let mut prepared = {
            let bar = terminal.progress("loading", Unit::Bytes);
            let total = model.checkpoint.entries().map(|(_, entry)| entry.bytes as u64).sum();
            Prepared::load(&model, device, tests, &|bytes| bar.advance(bytes, total))?
        };
        terminal.say(format_args!(
            "{}: weights there after {:.2} s, programs {:.2} s later, the first token after {:.2} s in all",
            model.name,
            prepared.load.as_secs_f64(),
            prepared.compile.as_secs_f64(),
            prepared.first_token.as_secs_f64()
        ));
        let results = tests
            .iter()
            .map(|test| {
                let measured = prepared.measure(test, self.repetitions)?;
                let profile = match self.profile {
                    true => prepared.profile(test, self.repetitions)?,
                    false => Vec::new(),
                };
                Ok(Line { bandwidth_share: measured.gb_s / bandwidth.read_gb_s, measured, profile })
            })
            .collect::<Result<_>>()?;
        Ok(Report {
            params: model.checkpoint.values(),
            size_bytes: model.checkpoint.entries().map(|(_, entry)| entry.bytes as u64).sum(),
            format: format.map_or("as stored", Format::name).to_owned(),
            model: model.name,
            math: match math {
                Math::F32 => "f32",
                Math::Fast => "fast",
            },
            device: info,
            driver,
            bandwidth_gb_s: bandwidth.read_gb_s,
            copy_gb_s: bandwidth.copy_gb_s,
            load_s: prepared.load.as_secs_f64(),
            compile_s: prepared.compile.as_secs_f64(),
            first_token_s: prepared.first_token.as_secs_f64(),
            results,
        })
    }

    fn write(&self, report: &Report) -> Result<()> {
        match self.output {
            Output::Json | Output::Jsonl => return terminal::write_json(report),
            _ => (),
        }
        let Report { model, params, size_bytes, format, math, device, driver, bandwidth_gb_s, .. } = report;
        for Line { measured, bandwidth_share, .. } in &report.results {
            let Measured { test, tokens, tps_mean, tps_sd, gb_s, dispatches, encode_us, submit_us } =
                measured;
            let line = if self.output == Output::Csv {
                let quoted = |text: &str| format!("\"{}\"", text.replace('"', "\"\""));
                format!(
                    "{},{params},{size_bytes},{format},{math},{},{},{},{bandwidth_gb_s},{test},{tokens},\
                     {tps_mean},{tps_sd},{gb_s},{bandwidth_share},{dispatches},{encode_us},{submit_us}\n",
                    quoted(model),
                    device.backend,
                    quoted(&device.name),
                    quoted(driver)
                )
            } else {
                format!(
                    "| {model} | {:.2} MiB | {:.2} M | {} | {test} | {tps_mean:.2} ± {tps_sd:.2} | \
                     {gb_s:.1} | {:.0} % | {dispatches} | {encode_us:.0} + {submit_us:.0} µs |\n",
                    *size_bytes as f64 / f64::from(1 << 20),
                    *params as f64 / 1e6,
                    device.name,
                    bandwidth_share * 100.0
                )
            };
            terminal::write(line)?;
        }
        let profiles = report.results.iter().filter(|line| !line.profile.is_empty());
        match self.output {
            Output::Md => profiles.into_iter().try_for_each(|line| write_profile(line, *bandwidth_gb_s)),
            _ => Ok(()),
        }
    }
}

/// Writes where a step's time goes, as a table of its own.
fn write_profile(line: &Line, bandwidth_gb_s: f64) -> Result<()> {
    let mut text = format!(
        "\n| {}, a step | passes | µs | share | GB/s | of the bandwidth | GFLOP/s |\n\
         | --- | ---: | ---: | ---: | ---: | ---: | ---: |\n",
        line.measured.test
    );
    for Profiled { kernel, note, passes, us, share, gb_s, gflop_s } in &line.profile {
        let (share, of_bandwidth) = (100.0 * share, 100.0 * gb_s / bandwidth_gb_s);
        text += &format!(
            "| {kernel} {note} | {passes} | {us:.1} | {share:.0} % | {gb_s:.1} | {of_bandwidth:.0} % | \
             {gflop_s:.1} |\n"
        );
    }
    terminal::write(text).map(|_| ())
}
