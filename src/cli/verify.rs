//! `wgpt verify`

use super::{DeviceArgs, terminal, terminal::Terminal};
use crate::{
    error::{Error, Result},
    verify::{Check, verify},
};
use clap::Args;
use serde_json::json;
use std::fmt::Write;

#[derive(Args)]
pub struct Verify {
    #[command(flatten)]
    device: DeviceArgs,
    /// One JSON object
    #[arg(long)]
    json: bool,
}

impl Verify {
    pub fn run(&self, terminal: &Terminal) -> Result<()> {
        let device = self.device.open()?;
        let info = device.info();
        terminal.say(format_args!("verifying {} ({}): {}", info.name, info.backend, device.reason));
        drop(device);
        let checks = verify(|| self.device.open())?;
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
                "{} computes {} of {} kernels and variants wrongly, the first {} ({}): do not trust what it says, update its \
                 driver or use --device cpu",
                info.name,
                wrong.len(),
                checks.len(),
                first.kernel,
                first.variant
            ))),
        }
    }
}
