//! `wgpt inspect`: the contents of a checkpoint, or a look into the model while it reads a prompt.

mod prompt;

use super::{ModelArgs, terminal, terminal::Terminal};
use crate::{
    architecture::{Architecture, Rope},
    error::Result,
    model::Model,
    weights::Format,
};
use clap::Args;
use serde_json::{Value, json};
use std::{
    collections::{BTreeMap, HashMap},
    fmt::Write,
    path::PathBuf,
};

#[derive(Args)]
pub struct Inspect {
    #[command(flatten)]
    model: ModelArgs,
    /// List every tensor
    #[arg(long)]
    tensors: bool,
    /// Look into the model while it reads this: what may come after each token, and by each layer
    #[arg(long, value_name = "TEXT", conflicts_with = "tensors")]
    prompt: Option<String>,
    /// Write what is seen as a page for a browser, and where each head of attention looks
    #[arg(long, value_name = "FILE", requires = "prompt")]
    html: Option<PathBuf>,
    /// One JSON object
    #[arg(long)]
    json: bool,
}

impl Inspect {
    pub fn run(&self, terminal: &Terminal) -> Result<()> {
        if let Some(text) = &self.prompt {
            let shown = prompt::Shown { html: self.html.as_deref(), json: self.json };
            return prompt::run(text, &self.model, shown, terminal);
        }
        let model = self.model.open_weights(terminal)?;
        let tensors = tensors(&model);
        if self.json {
            return terminal::write_json(&as_json(&model, &tensors));
        }
        let (a, mut text) = (&model.architecture, String::new());
        let mut line = |label: &str, value: String| writeln!(text, "{label:14} {value}").expect("a string");
        line("model", model.name.clone());
        line("family", a.family.to_owned());
        line("parameters", parameters(&tensors).to_string());
        line("layers", a.layers.len().to_string());
        line("hidden size", format!("{}, {} within the MLP", a.hidden_size, a.intermediate_size()));
        line("heads", format!("{} of {}, {} of keys and values", a.n_heads, a.head_dim, a.n_kv_heads));
        line("vocabulary", a.vocab_size.to_string());
        line("context", a.max_positions.to_string());
        line("positions", positions(a));
        if let Some(vision) = &a.vision {
            let (side, patch, tokens) = (vision.image_size, vision.patch_size, vision.tokens());
            let layers = format!("{} of {} layers", vision.layers_run, vision.tower.layers.len());
            let size = vision.tower.hidden_size;
            line(
                "images",
                format!("{side} by {side} in patches of {patch}, {layers} of {size}, {tokens} tokens"),
            );
        }
        line("chat template", if model.chat_template.is_some() { "yes" } else { "none" }.to_owned());
        let size = |bits: f64, bytes: usize| format!("{bytes} bytes, {bits:.2} bits a weight");
        for (dtype, tensors) in by_type(&tensors) {
            let bytes = tensors.iter().map(|t| t.bytes).sum();
            let size = size(bits_per_weight(tensors.iter().copied()), bytes);
            line("weights", format!("{dtype}: {} tensors, {size}", tensors.len()));
        }
        line("in all", size(bits_per_weight(&tensors), tensors.iter().map(|t| t.bytes).sum()));
        if self.tensors {
            for Tensor { name, dtype, shape, bytes } in &tensors {
                writeln!(text, "{name}  {dtype} {shape:?}, {bytes} bytes").expect("a string");
            }
        }
        terminal::write(text).map(|_| ())
    }
}

fn positions(a: &Architecture) -> String {
    let rotary = |rope: &Rope| format!("rotary, theta {}, scaling {:?}", rope.theta, rope.scaling);
    match a.embedding.positions {
        Some(_) => "learned".to_owned(),
        None => a.ropes().into_iter().map(rotary).collect::<Vec<_>>().join("; "),
    }
}

/// A tensor as the checkpoint's header describes it, or as `--quantize` would pack it.
struct Tensor<'a> {
    name: &'a str,
    dtype: String,
    shape: &'a [usize],
    bytes: usize,
}

impl Tensor<'_> {
    fn values(&self) -> u64 {
        self.shape.iter().map(|n| *n as u64).product()
    }
}

fn tensors(model: &Model) -> Vec<Tensor<'_>> {
    let packed: HashMap<String, (Format, usize)> = model
        .tensors
        .specs()
        .into_iter()
        .filter_map(|spec| {
            let (format, (name, _)) =
                (spec.format?, model.checkpoint.find(&spec.name, model.tensors.spellings)?);
            let rows = spec.shape.iter().product::<u32>() / spec.columns();
            Some((name, (format, rows as usize * format.row_bytes(spec.columns() as usize))))
        })
        .collect();
    let all = model.checkpoint.entries().map(|(name, entry)| {
        let (dtype, bytes) = match packed.get(name) {
            Some((format, bytes)) => (format.name().to_uppercase(), *bytes),
            None => (entry.dtype.clone(), entry.bytes),
        };
        Tensor { name, dtype, shape: &entry.shape, bytes }
    });
    all.collect()
}

/// The number of values in all tensors.
fn parameters(tensors: &[Tensor]) -> u64 {
    tensors.iter().map(Tensor::values).sum()
}

/// The average number of bits per value.
fn bits_per_weight<'a>(tensors: impl IntoIterator<Item = &'a Tensor<'a>>) -> f64 {
    let (bytes, values) =
        tensors.into_iter().fold((0, 0), |(bytes, values), t| (bytes + t.bytes, values + t.values()));
    if values == 0 { 0.0 } else { bytes as f64 * 8.0 / values as f64 }
}

/// Groups tensors by data type.
fn by_type<'a>(tensors: &'a [Tensor<'a>]) -> BTreeMap<&'a str, Vec<&'a Tensor<'a>>> {
    let mut types = BTreeMap::<_, Vec<_>>::new();
    for tensor in tensors {
        types.entry(tensor.dtype.as_str()).or_default().push(tensor);
    }
    types
}

fn as_json(model: &Model, tensors: &[Tensor]) -> Value {
    let a = &model.architecture;
    let entries = tensors.iter().map(|Tensor { name, dtype, shape, bytes }| {
        json!({"name": name, "dtype": dtype, "shape": shape, "bytes": bytes})
    });
    json!({
        "model": model.name,
        "family": a.family,
        "parameters": parameters(tensors),
        "size_bytes": tensors.iter().map(|t| t.bytes).sum::<usize>(),
        "bits_per_weight": bits_per_weight(tensors),
        "vocab_size": a.vocab_size,
        "max_context": a.max_positions,
        "hidden_size": a.hidden_size,
        "intermediate_size": a.intermediate_size(),
        "n_layers": a.layers.len(),
        "n_heads": a.n_heads,
        "n_kv_heads": a.n_kv_heads,
        "head_dim": a.head_dim,
        "positions": positions(a),
        "chat_template": model.chat_template,
        "tensors": entries.collect::<Vec<_>>(),
    })
}
