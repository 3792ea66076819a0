//! `wgpt devices`: lists the devices.

use super::{terminal, terminal::Terminal};
use crate::{
    backend::{AdapterSummary, Device, DeviceChoice, GpuOptions, adapters},
    error::Result,
};
use clap::Args;
use std::fmt::Write;

#[derive(Args)]
pub struct Devices {
    /// Mark the one that `--device` would choose so: auto, cpu, gpu, a number, part of a name, vulkan,
    /// dx12:4090, …
    #[arg(long, default_value = "auto")]
    device: String,
    /// One JSON array
    #[arg(long)]
    json: bool,
}

impl Devices {
    pub fn run(&self, terminal: &Terminal) -> Result<()> {
        let all = adapters(&DeviceChoice::from(self.device.as_str()))?;
        if self.json {
            return terminal::write_json(&all);
        }
        let mut text = String::new();
        for a in &all {
            let mark = if a.chosen { "*" } else { " " };
            write!(text, "{mark} {:2}  {:6}  {:10}  {}", a.index, a.backend, a.r#type, a.name)
                .expect("a string");
            let mut details = vec![a.driver.clone(), a.features.join(", ")];
            details.extend(matrices(a));
            let details: Vec<_> = details.into_iter().filter(|d| !d.is_empty()).collect();
            if !details.is_empty() {
                write!(text, "  ({})", details.join("; ")).expect("a string");
            }
            text.push('\n');
        }
        terminal::write(text)?;
        terminal.say(format_args!("* is what --device {} chooses", self.device));
        Ok(())
    }
}

/// Whether products use an adapter's cooperative matrices.
fn matrices(adapter: &AdapterSummary) -> Option<String> {
    if !adapter.features.contains(&"cooperative-matrix") {
        return None;
    }
    let options = GpuOptions { keep_pipelines: true, ..GpuOptions::default() };
    Device::open(&DeviceChoice::Index(adapter.index), true, None, options).ok()?.matrices()
}
