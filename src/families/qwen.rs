//! Qwen2 and 2.5 (Yang et al. 2024), `qwen2`: LLaMA with biases on q, k and v. Qwen3 (Yang et al. 2025),
//! `qwen3`: without these biases; each head of q and k is normalized before the rotary positions are applied.

use super::{
    Config,
    llama::{Biases, Kin, read},
};
use crate::{
    architecture::{Architecture, Attention, QkNorm, Span},
    error::Result,
    weights::ModelTensors,
};

const QWEN: Kin = Kin { intermediate_size: 22016, n_kv_heads: Some(32), max_positions: 32768, ..Kin::LLAMA };

pub fn qwen2(config: &Config) -> Result<(Architecture, ModelTensors)> {
    let kin = Kin { family: "qwen2", biases: Biases { qkv: true, ..Biases::NONE }, ..QWEN };
    let spans = spans(config, kin.layers(config)?)?;
    read(config, kin, |layer, full| Attention { span: spans[layer], ..full })
}

pub fn qwen3(config: &Config) -> Result<(Architecture, ModelTensors)> {
    let biases = Biases::of_attention(config)?;
    let kin = Kin { family: "qwen3", head_dim: Some(128), biases, ..QWEN };
    let spans = spans(config, kin.layers(config)?)?;
    read(config, kin, |layer, full| Attention {
        span: spans[layer],
        qk_norm: QkNorm::of_heads(&full),
        ..full
    })
}

/// What each layer attends to. With `use_sliding_window`, the layers that `layer_types` lists have a window,
/// or without that list, all layers from `max_window_layers` on.
fn spans(config: &Config, n_layers: usize) -> Result<Vec<Span>> {
    let on = config.bool("use_sliding_window", false)?;
    let window =
        if config.has("sliding_window") { config.count("sliding_window", u32::MAX)? } else { Some(4096) };
    let window = window.filter(|_| on);
    let first = config.f64("max_window_layers", 28.0)? as usize;
    let is_sliding = match config.sliding_layers(n_layers)? {
        Some(listed) => listed,
        None => (0..n_layers).map(|layer| window.is_some() && layer >= first).collect(),
    };
    if window.is_none() && is_sliding.contains(&true) {
        return Err(config.wrong(
            "sliding_window",
            "layer_types has layers that attend to a window: its length belongs there, and \
             use_sliding_window true",
        ));
    }
    Ok(is_sliding.iter().map(|sliding| Span::window(window.filter(|_| *sliding))).collect())
}
