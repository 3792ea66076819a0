//! Models with the shapes of well-known ones and random weights, for benchmarks without a download.
//!
//! The host generates the weights, and they are loaded like those of any model, so that loading is measured
//! too.

use crate::{
    architecture::Architecture,
    defaults::Defaults,
    error::{Error, Result},
    families,
    model::Model,
    weights::{Checkpoint, Entry, Format, LayerTensors, ModelTensors, Order, Tensor, TensorSpec},
};
use serde_json::{Value, json};
use std::collections::HashMap;

/// The names of the shapes, as on the command line.
pub const SHAPES: [&str; 8] = [
    "gpt2",
    "gpt2-medium",
    "gpt2-large",
    "gpt2-xl",
    "smollm2-135m",
    "llama-3.2-1b",
    "llama-3.2-3b",
    "llama-3.1-8b",
];

/// The entries of a shape's published config.json that determine the computation; None if the shape is
/// unknown.
fn config(shape: &str) -> Option<Value> {
    let gpt2 = |n_layer: u32, n_embd: u32, n_head: u32| {
        json!({
            "model_type": "gpt2", "n_layer": n_layer, "n_embd": n_embd, "n_head": n_head,
        })
    };
    let llama = |layers: u32, hidden: u32, inner: u32, heads: u32, kv: u32, tied: bool| {
        json!({
            "model_type": "llama", "num_hidden_layers": layers, "hidden_size": hidden,
            "intermediate_size": inner, "num_attention_heads": heads,
            "num_key_value_heads": kv, "vocab_size": 128_256, "rope_theta": 500_000.0,
            "max_position_embeddings": 131_072, "tie_word_embeddings": tied,
        })
    };
    Some(match shape {
        "gpt2" => gpt2(12, 768, 12),
        "gpt2-medium" => gpt2(24, 1024, 16),
        "gpt2-large" => gpt2(36, 1280, 20),
        "gpt2-xl" => gpt2(48, 1600, 25),
        "smollm2-135m" => json!({
            "model_type": "llama", "num_hidden_layers": 30, "hidden_size": 576, "intermediate_size": 1536,
            "num_attention_heads": 9, "num_key_value_heads": 3, "vocab_size": 49_152, "rope_theta": 100_000.0,
            "max_position_embeddings": 8192, "tie_word_embeddings": true,
        }),
        "llama-3.2-1b" => llama(16, 2048, 8192, 32, 8, true),
        "llama-3.2-3b" => llama(28, 3072, 8192, 24, 8, true),
        "llama-3.1-8b" => llama(32, 4096, 14_336, 32, 8, false),
        _ => return None,
    })
}

/// A model of a known shape with random weights. Its matrices have the formats that quantising to `format`
/// would give. With `alike`, matrices of the same shape and format share their bytes, which makes no
/// difference to a device that copies them.
///
/// # Errors
/// Of the kind Request if there is no such shape.
pub fn model(shape: &str, format: Format, alike: bool) -> Result<Model> {
    let known = || SHAPES.join(", ");
    let config = config(shape)
        .ok_or_else(|| Error::request(format!("there is no shape {shape}: there are {}", known())))?;
    let (architecture, mut tensors): (Architecture, ModelTensors) = families::read(shape, &config)?;
    // Store all matrices as Linear layers in our order do, not transposed: the blocks of a format lie along a
    // row.
    for spec in tensors.layers.iter_mut().flat_map(LayerTensors::matrices_mut) {
        if spec.transposed {
            spec.shape.reverse();
        }
        (spec.transposed, spec.order) = (false, Order::AsStored);
    }
    // Find the formats that quantising would choose, from a checkpoint of f32 tensors that has only headers.
    let mut wanted = tensors.clone();
    wanted.quantize(format, &stored(&tensors, |_| Format::F32, false, true));
    let formats: HashMap<_, _> =
        wanted.specs().into_iter().filter_map(|spec| Some((spec.name.clone(), spec.format?))).collect();
    let of = |spec: &TensorSpec| formats.get(&spec.name).copied().unwrap_or(Format::F32);
    let checkpoint = stored(&tensors, of, alike, false);
    Ok(Model::new(
        format!("{shape} {}", format.name()),
        architecture,
        tensors,
        checkpoint,
        Defaults::default(),
    ))
}

/// A checkpoint of random tensors for all specs, in the formats that `of` returns; with `empty`, without any
/// data.
fn stored(
    tensors: &ModelTensors,
    of: impl Fn(&TensorSpec) -> Format,
    alike: bool,
    empty: bool,
) -> Checkpoint {
    let (mut checkpoint, mut known) = (Checkpoint::default(), HashMap::new());
    for (seed, spec) in tensors.specs().into_iter().enumerate() {
        let format = of(spec);
        let shape: Vec<usize> = spec.shape.iter().map(|n| *n as usize).collect();
        let columns = *shape.last().expect("a matrix or a vector");
        let rows = shape.iter().product::<usize>() / columns;
        let make = || Tensor::random(&spec.name, format, if empty { 0 } else { rows }, columns, seed as u64);
        let tensor = match alike {
            true => known.entry((format, shape.clone())).or_insert_with(make).clone(),
            false => make(),
        };
        let tensor = tensor.named(&spec.name, &shape);
        let bytes = rows * format.row_bytes(columns);
        let entry = Entry { dtype: format.name().to_uppercase(), shape, bytes, tensor: Some(tensor) };
        checkpoint.insert(&spec.name, entry);
    }
    checkpoint
}
