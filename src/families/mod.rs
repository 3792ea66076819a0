//! Model families, one file each: config.json → an [`Architecture`] and the names and shapes of its
//! tensors.
//!
//! To add a family, add a file here and a line in `FAMILIES`.

mod fields;
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

/// `model_type` in config.json → the function that reads that family, and the names in `architectures` of its
/// models that generate text. That of the model without a head is transformers' name for the rest of it, with
/// "Model".
const FAMILIES: [(&str, Family, &[&str]); 9] = [
    ("openai-gpt", gpt1::read, &["OpenAIGPTLMHeadModel", "OpenAIGPTModel"]),
    ("gpt2", gpt2::read, &["GPT2LMHeadModel", "GPT2Model"]),
    ("gpt_neo", gpt_neo::read, &["GPTNeoForCausalLM", "GPTNeoModel"]),
    ("llama", llama::llama, &["LlamaForCausalLM", "LLaMAForCausalLM", "LlamaModel"]),
    ("mistral", llama::mistral, &["MistralForCausalLM", "MistralModel"]),
    ("qwen2", qwen::qwen2, &["Qwen2ForCausalLM", "Qwen2Model"]),
    ("qwen3", qwen::qwen3, &["Qwen3ForCausalLM", "Qwen3Model"]),
    ("smollm3", smollm3::smollm3, &["SmolLM3ForCausalLM", "SmolLM3Model"]),
    ("llava", llava::read, &["LlavaForConditionalGeneration"]),
];

/// Reads a config.json. `name` is what error messages call it.
///
/// # Errors
/// Of the kind Model where the family is unknown, or a field is missing, wrong or not supported.
pub fn read(name: &str, json: &Value) -> Result<(Architecture, ModelTensors)> {
    let config = Config::new(name, json)?;
    let known = || FAMILIES.map(|(family, ..)| family).join(", ");
    let Some(family) = config.str("model_type")? else {
        return Err(config.wrong("model_type", format!("one of these belongs there: {}", known())));
    };
    let Some((_, read, classes)) = FAMILIES.iter().find(|(name, ..)| *name == family) else {
        return Err(config.wrong("model_type", format!("the families there are: {}", known())));
    };
    let named = match config.get("architectures") {
        Some(Value::Array(named)) => named.as_slice(),
        Some(one) => std::slice::from_ref(one),
        None => &[],
    };
    let is_known = |name: &Value| name.as_str().is_some_and(|name| classes.contains(&name));
    if !named.is_empty() && !named.iter().any(is_known) {
        let classes = classes.join(", ");
        return Err(
            config.wrong("architectures", format!("the {family} models that are read here are: {classes}"))
        );
    }
    let model = read(&config)?;
    fields::judge(&config, family)?;
    Ok(model)
}

fn norm(name: impl std::fmt::Display, width: u32, bias: bool) -> NormTensors {
    NormTensors {
        weight: TensorSpec::vector(format!("{name}.weight"), width),
        bias: bias.then(|| TensorSpec::vector(format!("{name}.bias"), width)),
    }
}

/// Tensors that checkpoints of the first GPTs may have and that are not needed: each layer's causal mask,
/// which has this name there, and a head that is tied.
fn masks_and_head(n_layers: u32, mask: &str) -> Vec<String> {
    let masks = (0..n_layers).map(|layer| format!("transformer.h.{layer}.{mask}"));
    masks.chain(["lm_head.weight".to_owned()]).collect()
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
