//! `wgpt plan`: the memory that a model takes and the passes that run, without loading it.

use super::{ModelArgs, terminal, terminal::Terminal};
use crate::{
    decoder::longest_context,
    engine::{EngineOptions, plans, sizes, vision_plans},
    error::Result,
    plan::Plans,
    simd::Math,
    workload::Phase,
};
use clap::Args;
use serde::Serialize;

#[derive(Args)]
pub struct Plan {
    #[command(flatten)]
    model: ModelArgs,
    /// One JSON object instead of the listings
    #[arg(long)]
    json: bool,
}

/// The memory that a model takes on a device, and the number of dispatches.
#[derive(Serialize)]
struct Needs {
    weights_bytes: u64,
    cache_bytes: u64,
    activation_bytes: u64,
    total_bytes: u64,
    max_context: u32,
    passes_prefill: usize,
    passes_decode: usize,
    passes_per_layer_decode: usize,
}

impl Plan {
    pub fn run(&self, terminal: &Terminal) -> Result<()> {
        let model = self.model.open_weights(terminal)?;
        let device = self.model.exactness.of(self.model.device.open()?, Math::Fast);
        let can = device.capabilities();
        let sizes =
            sizes(&model, &can, EngineOptions { context: self.model.ctx, ..EngineOptions::default() })?;
        let plans = plans(&model, &can, sizes)?;
        let tower = vision_plans(&model, &can)?;
        let both = || std::iter::once(&plans).chain(&tower);
        let weights_bytes = both().map(Plans::weights_bytes).sum();
        let cache_bytes = both().map(Plans::cache_bytes).sum();
        let total_bytes: u64 = both().map(|plans| plans.buffers.total(&plans.sizes, |_| true)).sum();
        let [prefill, decode] = Phase::ALL.map(|phase| plans.dispatches(phase, &can));
        let needs = Needs {
            weights_bytes,
            cache_bytes,
            activation_bytes: total_bytes - weights_bytes - cache_bytes,
            total_bytes,
            max_context: longest_context(&model.architecture, &can),
            passes_prefill: prefill.all,
            passes_decode: decode.all,
            passes_per_layer_decode: decode.max_of_a_layer,
        };
        if self.json {
            return terminal::write_json(&needs);
        }
        let mib = |bytes: u64| format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20));
        let image = tower.as_ref().map_or_else(String::new, |tower| {
            let count = tower.dispatches(Phase::Prefill, &can).all;
            format!("an image, {count} dispatches:\n{}\n", tower.listing(Phase::Prefill))
        });
        let text = format!(
            "{} on {}, a context of {}\n\n{image}prefill, {} dispatches:\n{}\ndecode, {} dispatches, {} in a \
             layer:\n{}\nweights {}, cache {}, activations {}, in all {}; the longest context is {}\n",
            model.name,
            device.info().name,
            sizes.context,
            prefill.all,
            plans.listing(Phase::Prefill),
            decode.all,
            decode.max_of_a_layer,
            plans.listing(Phase::Decode),
            mib(weights_bytes),
            mib(cache_bytes),
            mib(needs.activation_bytes),
            mib(total_bytes),
            needs.max_context,
        );
        terminal::write(text).map(|_| ())
    }
}
