//! GPT-1 (Radford et al. 2018), `openai-gpt`: post-norm, learned positions, no final norm, usually a tied
//! head.

use super::{conv1d_layer, masks_and_head};
use crate::{
    architecture::{
        Activation, Architecture, Attention, Embedding, Layer, Logits, Mlp, Norm, NormKind, Norms,
    },
    config::Config,
    error::Result,
    weights::{ModelTensors, TensorSpec},
};

pub fn read(config: &Config) -> Result<(Architecture, ModelTensors)> {
    let hidden_size = config.size_of(&["n_embd", "hidden_size"], 768)?;
    let n_heads = config.size_of(&["n_head", "num_attention_heads"], 12)?;
    let n_layers = config.layers(&["n_layer", "num_hidden_layers"], 12)?;
    let head_dim = config.head_dim("n_head", n_heads, hidden_size)?;
    let vocab_size = config.size("vocab_size", 40478)?;
    let max_positions = config.size_of(&["n_positions", "max_position_embeddings"], 512)?;
    let tied = config.bool("tie_word_embeddings", true)?;
    // GPT-1's "gelu" is the tanh approximation; later models mean the exact form by that name.
    let activation = match config.activation("afn", "gelu")? {
        Activation::Gelu => Activation::GeluTanh,
        other => other,
    };
    let by = Norm::new(NormKind::Layer, config.epsilon("layer_norm_epsilon", 1e-5)?);
    let attention = Attention::full(head_dim, Norms::of_sum(by));
    let mlp = Mlp {
        norms: Norms::of_sum(by),
        intermediate_size: 4 * hidden_size,
        activation,
        gated: false,
        experts: None,
    };
    let architecture = Architecture {
        family: "openai-gpt",
        vocab_size,
        max_positions,
        hidden_size,
        n_heads,
        n_kv_heads: n_heads,
        head_dim,
        embedding: Embedding::WITH_POSITIONS,
        layers: vec![Layer::new(attention, mlp); n_layers as usize],
        final_norm: None,
        logits: Logits::PLAIN,
        bos: config.ids("bos_token_id"),
        eos: config.ids("eos_token_id"),
        vision: None,
    };
    let tensors = ModelTensors {
        spellings: &[("transformer.", "")],
        vision: None,
        tokens: TensorSpec::matrix("transformer.tokens_embed.weight", vocab_size, hidden_size),
        positions: Some(TensorSpec::matrix("transformer.positions_embed.weight", max_positions, hidden_size)),
        layers: (0..n_layers).map(|l| conv1d_layer(l, hidden_size, 4 * hidden_size, Norms::of_sum)).collect(),
        final_norm: None,
        head: (!tied).then(|| TensorSpec::matrix("lm_head.weight", vocab_size, hidden_size)),
        ignored: masks_and_head(n_layers, "attn.bias"),
    };
    Ok((architecture, tensors))
}
