//! `wgpt inspect`

use super::{check_name, terminal, terminal::Terminal};
use crate::{architecture::Positions, error::Result, model::Model};
use clap::Args;
use serde_json::{Value, json};
use std::{collections::BTreeMap, fmt::Write};

#[derive(Args)]
pub struct Inspect {
    /// A .gguf file or a Hugging Face folder. Default: the small model built in
    #[arg(short, long, value_name = "MODEL")]
    model: Option<String>,
    /// List every tensor
    #[arg(long)]
    tensors: bool,
    /// One JSON object
    #[arg(long)]
    json: bool,
}

impl Inspect {
    pub fn run(&self, _: &Terminal) -> Result<()> {
        let model = match &self.model {
            None => Model::built_in()?.0,
            Some(name) => Model::open_weights(check_name(name)?)?,
        };
        if self.json {
            return terminal::write_json(&as_json(&model));
        }
        let (a, mut text) = (&model.architecture, String::new());
        let mut line = |label: &str, value: String| writeln!(text, "{label:14} {value}").expect("a string");
        line("model", model.name.clone());
        line("family", a.family.to_owned());
        line("parameters", parameters(&model).to_string());
        line("layers", a.layers.len().to_string());
        line("hidden size", format!("{}, {} within the MLP", a.hidden_size, a.intermediate_size));
        line("heads", format!("{} of {}, {} of keys and values", a.n_heads, a.head_dim, a.n_kv_heads));
        line("vocabulary", a.vocab_size.to_string());
        line("context", a.max_positions.to_string());
        line("positions", positions(&a.positions));
        for (dtype, (tensors, bytes)) in formats(&model) {
            line("weights", format!("{dtype}: {tensors} tensors, {bytes} bytes"));
        }
        if self.tensors {
            for (name, entry) in model.checkpoint.entries() {
                writeln!(text, "{name}  {} {:?}", entry.dtype, entry.shape).expect("a string");
            }
        }
        terminal::write(text).map(|_| ())
    }
}

fn positions(positions: &Positions) -> String {
    match positions {
        Positions::Learned => "learned".to_owned(),
        Positions::Rotary(rope) => format!("rotary, theta {}, scaling {:?}", rope.theta, rope.scaling),
    }
}

/// Values in all tensors.
fn parameters(model: &Model) -> u64 {
    model.checkpoint.entries().map(|(_, e)| e.shape.iter().map(|n| *n as u64).product::<u64>()).sum()
}

/// Tensors and bytes by type.
fn formats(model: &Model) -> BTreeMap<&str, (usize, usize)> {
    let mut formats = BTreeMap::new();
    for (_, entry) in model.checkpoint.entries() {
        let (tensors, bytes) = formats.entry(entry.dtype.as_str()).or_default();
        *tensors += 1;
        *bytes += entry.bytes;
    }
    formats
}

fn as_json(model: &Model) -> Value {
    let a = &model.architecture;
    let tensors = model.checkpoint.entries().map(|(name, entry)| {
        json!({"name": name, "dtype": entry.dtype, "shape": entry.shape, "bytes": entry.bytes})
    });
    json!({
        "model": model.name,
        "family": a.family,
        "parameters": parameters(model),
        "size_bytes": model.checkpoint.entries().map(|(_, e)| e.bytes).sum::<usize>(),
        "vocab_size": a.vocab_size,
        "max_context": a.max_positions,
        "hidden_size": a.hidden_size,
        "intermediate_size": a.intermediate_size,
        "n_layers": a.layers.len(),
        "n_heads": a.n_heads,
        "n_kv_heads": a.n_kv_heads,
        "head_dim": a.head_dim,
        "positions": positions(&a.positions),
        "tensors": tensors.collect::<Vec<_>>(),
    })
}
