//! GPT-2 (Radford et al. 2019), `gpt2`: pre-norm, learned positions, a final norm.

use super::{conv1d_layer, masks_and_head, norm};
use crate::{
    architecture::{Architecture, Attention, Embedding, Layer, Logits, Mlp, Norm, NormKind, Norms},
    config::Config,
    error::Result,
    weights::{ModelTensors, TensorSpec},
};

pub fn read(config: &Config) -> Result<(Architecture, ModelTensors)> {
    let hidden_size = config.size_of(&["n_embd", "hidden_size"], 768)?;
    let n_heads = config.size_of(&["n_head", "num_attention_heads"], 12)?;
    let n_layers = config.layers(&["n_layer", "num_hidden_layers"], 12)?;
    let head_dim = config.head_dim("n_head", n_heads, hidden_size)?;
    let vocab_size = config.size("vocab_size", 50257)?;
    let max_positions = config.size_of(&["n_positions", "max_position_embeddings"], 1024)?;
    let intermediate_size = config.size("n_inner", 4 * hidden_size)?;
    let scaled = config.bool("scale_attn_weights", true)?;
    let by_layer = config.bool("scale_attn_by_inverse_layer_idx", false)?;
    let tied = config.bool("tie_word_embeddings", true)?;
    let by = Norm::new(NormKind::Layer, config.epsilon("layer_norm_epsilon", 1e-5)?);
    let attention = |layer: u32| Attention {
        scale: if scaled { 1.0 / (head_dim as f32).sqrt() } else { 1.0 }
            / if by_layer { (layer + 1) as f32 } else { 1.0 },
        ..Attention::full(head_dim, Norms::before(by))
    };
    let mlp = Mlp {
        norms: Norms::before(by),
        intermediate_size,
        activation: config.activation("activation_function", "gelu_new")?,
        gated: false,
        experts: None,
    };
    let layer = |number| Layer::new(attention(number), mlp.clone());
    let architecture = Architecture {
        family: "gpt2",
        vocab_size,
        max_positions,
        hidden_size,
        n_heads,
        n_kv_heads: n_heads,
        head_dim,
        embedding: Embedding::WITH_POSITIONS,
        layers: (0..n_layers).map(layer).collect(),
        final_norm: Some(by),
        logits: Logits::PLAIN,
        bos: config.ids("bos_token_id"),
        eos: config.ids("eos_token_id"),
        vision: None,
    };
    let tensors = ModelTensors {
        spellings: &[("transformer.", "")],
        vision: None,
        tokens: TensorSpec::matrix("transformer.wte.weight", vocab_size, hidden_size),
        positions: Some(TensorSpec::matrix("transformer.wpe.weight", max_positions, hidden_size)),
        layers: (0..n_layers)
            .map(|l| conv1d_layer(l, hidden_size, intermediate_size, Norms::before))
            .collect(),
        final_norm: Some(norm("transformer.ln_f", hidden_size, true)),
        head: (!tied).then(|| TensorSpec::matrix("lm_head.weight", vocab_size, hidden_size)),
        ignored: masks_and_head(n_layers, "attn.bias"),
    };
    Ok((architecture, tensors))
}
