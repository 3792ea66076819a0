//! Model families, one file each: config.json → an [`Architecture`] and the names and shapes of its
//! tensors.
//!
//! To add a family, add a file here and a line in `FAMILIES`.

mod gguf;
mod gpt1;
mod gpt2;
mod gpt_neo;
mod llama;
mod llava;
mod qwen;
mod smollm3;

use crate::{
    architecture::{Architecture, Norms},
    config::Config,
    error::Result,
    weights::{AttentionTensors, LayerTensors, MlpTensors, ModelTensors, NormTensors, TensorSpec},
};
pub use gguf::{
    keeps_order as gguf_keeps_order, names as gguf_names, read as read_gguf, write as write_gguf,
};
use serde_json::Value;

type Family = fn(&Config) -> Result<(Architecture, ModelTensors)>;

/// `model_type` in config.json → the function that reads that family.
const FAMILIES: [(&str, Family); 9] = [
    ("openai-gpt", gpt1::read),
    ("gpt2", gpt2::read),
    ("gpt_neo", gpt_neo::read),
    ("llama", llama::llama),
    ("mistral", llama::mistral),
    ("qwen2", qwen::qwen2),
    ("qwen3", qwen::qwen3),
    ("smollm3", smollm3::smollm3),
    ("llava", llava::read),
];

/// Reads a config.json. `name` is what error messages call it.
///
/// # Errors
/// Of the kind Model where the family is unknown, or a field is missing, wrong or not supported.
pub fn read(name: &str, json: &Value) -> Result<(Architecture, ModelTensors)> {
    let config = Config::new(name, json)?;
    let known = || FAMILIES.map(|(family, _)| family).join(", ");
    let Some(family) = config.str("model_type")? else {
        return Err(config.wrong("model_type", format!("one of these belongs there: {}", known())));
    };
    match FAMILIES.iter().find(|(name, _)| *name == family) {
        Some((_, read)) => read(&config),
        None => Err(config.wrong("model_type", format!("the families there are: {}", known()))),
    }
}

fn norm(name: impl std::fmt::Display, width: u32, bias: bool) -> NormTensors {
    NormTensors {
        weight: TensorSpec::vector(format!("{name}.weight"), width),
        bias: bias.then(|| TensorSpec::vector(format!("{name}.bias"), width)),
    }
}

/// A layer of GPT-1 or GPT-2: transposed (Conv1D) matrices, q, k and v fused into one, a bias for every
/// matrix. `norms` says where a half's norm is.
fn conv1d_layer(
    layer: u32,
    width: u32,
    inner: u32,
    norms: fn(NormTensors) -> Norms<NormTensors>,
) -> LayerTensors {
    let at = |name: &str| format!("transformer.h.{layer}.{name}");
    let bias = |name: &str, len| TensorSpec::vector(at(name), len);
    LayerTensors {
        attention: AttentionTensors {
            norms: norms(norm(at("ln_1"), width, true)),
            qkv: vec![TensorSpec::transposed(at("attn.c_attn.weight"), 3 * width, width)],
            qkv_bias: vec![bias("attn.c_attn.bias", 3 * width)],
            qk_norm: None,
            out: TensorSpec::transposed(at("attn.c_proj.weight"), width, width),
            out_bias: Some(bias("attn.c_proj.bias", width)),
        },
        mlp: MlpTensors {
            norms: norms(norm(at("ln_2"), width, true)),
            up: vec![TensorSpec::transposed(at("mlp.c_fc.weight"), inner, width)],
            up_bias: vec![bias("mlp.c_fc.bias", inner)],
            down: TensorSpec::transposed(at("mlp.c_proj.weight"), width, inner),
            down_bias: Some(bias("mlp.c_proj.bias", width)),
        },
    }
}
