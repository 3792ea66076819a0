//! SmolLM3 (Hugging Face 2025), `smollm3`: LLaMA in which every fourth layer has no rotary positions.

use super::{
    Config,
    llama::{Biases, Kin, read},
};
use crate::{
    architecture::{Architecture, Attention, Span},
    error::Result,
    weights::ModelTensors,
};

pub fn smollm3(config: &Config) -> Result<(Architecture, ModelTensors)> {
    let kin = Kin {
        family: "smollm3",
        n_layers: 36,
        n_kv_heads: Some(4),
        max_positions: 32768,
        theta: 2_000_000.0,
        tied: true,
        biases: Biases::read(config)?,
        ..Kin::LLAMA
    };
    let n_layers = kin.layers(config)?;
    config.know(&["no_rope_layer_interval"]);
    let rotary = match config.flags("no_rope_layers", n_layers)? {
        Some(listed) => listed,
        None => {
            let interval = config.count("no_rope_layer_interval", u32::MAX)?.unwrap_or(4) as usize;
            (1..=n_layers).map(|layer| layer % interval != 0).collect()
        }
    };
    let window = config.count("sliding_window", u32::MAX)?;
    let on = config.bool("use_sliding_window", false)? && window.is_some();
    // If config.json lists layer types, only that list counts.
    let is_sliding = match config.sliding_layers(n_layers)? {
        Some(listed) => listed,
        None => rotary.iter().map(|rotary| on && !rotary).collect(),
    };
    if window.is_none() && is_sliding.contains(&true) {
        return Err(config.wrong(
            "sliding_window",
            "layer_types has layers that attend to a window: its length belongs there",
        ));
    }
    read(config, kin, |layer, full| Attention {
        span: Span::window(window.filter(|_| is_sliding[layer])),
        rope: full.rope.clone().filter(|_| rotary[layer]),
        ..full
    })
}
