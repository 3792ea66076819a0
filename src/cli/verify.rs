//! `wgpt verify`: checks every kernel on a device against its definition, or writes the programs to files.

use super::{DeviceArgs, open_weights, terminal, terminal::Terminal};
use crate::{
    backend::GpuOptions,
    capabilities::Capabilities,
    error::{Error, Result},
    kv_format::KvFormat,
    programs,
    shader::Compiler,
    verify::{Check, verify},
    weights::Format,
};
use clap::Args;
use serde_json::json;
use std::{
    fmt::Write,
    fs,
    path::{Path, PathBuf},
    str::FromStr,
};

#[derive(Args)]
pub struct Verify {
    #[command(flatten)]
    device: DeviceArgs,
    /// One JSON object
    #[arg(long)]
    json: bool,
    /// Verify nothing, but write each program of a model's plans, in every variant, as its compiler gets it:
    /// *.spv, *.hlsl, *.metal, *.wgsl
    #[arg(long, value_name = "DIR", conflicts_with = "json")]
    write_programs: Option<PathBuf>,
    /// Whose compiler: vulkan, dx12, metal or web. Default: all
    #[arg(long, value_name = "TARGET", value_parser = Compiler::from_str, requires = "write_programs")]
    target: Option<Compiler>,
    /// The model whose programs are written. Default: the small model built in
    #[arg(short, long, value_name = "MODEL", requires = "write_programs")]
    model: Option<String>,
    /// Pack its weights as this format
    #[arg(long, value_name = "FORMAT", value_parser = Format::from_str, requires = "write_programs")]
    quantize: Option<Format>,
    /// How its cache stores keys and values: f32, f16, q8_0, q4_0. Default: f16, as it is for other commands
    #[arg(long, value_name = "TYPE", value_parser = KvFormat::from_str, requires = "write_programs")]
    cache_type: Option<KvFormat>,
}

impl Verify {
    pub fn run(&self, terminal: &Terminal) -> Result<()> {
        if let Some(folder) = &self.write_programs {
            return self.write(folder, terminal);
        }
        let device = self.device.open()?;
        let info = device.info();
        terminal.say(format_args!("verifying {} ({}): {}", info.name, info.backend, device.reason));
        drop(device);
        let options = GpuOptions { software_matrices: true, ..self.device.options() };
        let checks = verify(|| self.device.open_with(options))?;
        let wrong: Vec<_> = checks.iter().filter(|check| !check.ok).collect();
        if self.json {
            terminal::write_json(&json!({"device": info, "checks": checks, "ok": wrong.is_empty()}))?;
        } else {
            let mut text = String::new();
            for Check { kernel, variant, max_error, tolerance, ok } in &checks {
                let mark = if *ok { "ok " } else { "BAD" };
                writeln!(text, "{mark} {kernel:9} {max_error:8.1e} of {tolerance:.0e}  {variant}")
                    .expect("a string");
            }
            terminal::write(text)?;
        }
        match wrong.first() {
            None => {
                terminal.say(format_args!("{} kernels and variants, all as defined", checks.len()));
                Ok(())
            }
            Some(first) => Err(Error::run(format!(
                "{} computes {} of {} kernels and variants wrongly, the first {} ({}): do not trust what it \
                 says, update its driver or use --device cpu",
                info.name,
                wrong.len(),
                checks.len(),
                first.kernel,
                first.variant
            ))),
        }
    }

    /// Writes the programs to `folder`, and the paths of the files to stdout.
    fn write(&self, folder: &Path, terminal: &Terminal) -> Result<()> {
        let model = open_weights(self.model.as_deref(), self.quantize, terminal)?;
        let device = self.device.open()?;
        let info = device.info();
        let failed = |path: &Path, e: std::io::Error| {
            Error::run(format!("{} cannot be written: {e}", path.display())).because(e)
        };
        fs::create_dir_all(folder).map_err(|e| failed(folder, e))?;
        let mut names = String::new();
        for target in self.target.map_or(Compiler::ALL.to_vec(), |target| vec![target]) {
            // For the device's own API its limits apply; for other APIs, the limits that every device has.
            let is_own = target.name() == info.backend;
            let mut can = if is_own { device.capabilities() } else { Capabilities::webgpu() };
            can.kv_format = self.cache_type.unwrap_or(KvFormat::F16);
            let all = programs::of_model(&model, target, &can)?;
            for program in &all {
                let path = folder.join(&program.name);
                fs::write(&path, &program.text).map_err(|e| failed(&path, e))?;
                writeln!(names, "{}", path.display()).expect("a string");
            }
            let limits = if is_own { &*info.name } else { "any device" };
            terminal.say(format_args!(
                "{} programs for {}, with the limits of {limits}",
                all.len(),
                target.name()
            ));
        }
        terminal::write(names).map(|_| ())
    }
}
