//! The one decoder: an architecture and its weights, written out as plans. One line, one pass.

use crate::{
    architecture::{Architecture, NormOrder, Positions},
    capabilities::Capabilities,
    error::{Error, Result},
    kernels::{
        By, Cache, CachePart, Candidates, Input, Partials, RopeTable, adjust, attention, attention_weights,
        embed, kv_write, matmul, norm, normed, rope, sample, score,
    },
    plan::{Buffer, Buffers, Content, Per, Plan, Plans, Rows, Shape, Sizes},
    step::BLOCK,
    weights::{LayerWeights, NormWeights, Weights},
};
use std::sync::Arc;

/// The most tokens of a text that is looked into: what there is to see grows with their square.
pub const MOST_SEEN: u32 = 256;

/// What the passes hand on to each other. All layers share them: in a chain a pass waits for the one before it anyway, so
/// that buffers of a layer's own would save a device no barrier.
struct Activations {
    /// The residual stream.
    x: Rows,
    /// The same, normalized.
    h: Rows,
    qkv: Rows,
    /// What attention makes of the values.
    mixed: Rows,
    /// Within the MLP.
    hidden: Rows,
    logits: Rows,
    /// What they give the targets.
    scores: Rows,
    /// By what attention mixes, where somebody wants to see it.
    weights: Option<Rows>,
}

/// Everything that a plan's passes refer to.
struct Decoder<'a> {
    architecture: &'a Architecture,
    weights: &'a Weights,
    a: Activations,
    caches: Vec<Cache>,
    partials: Partials,
    candidates: Candidates,
    /// cos and sin, where positions are rotary.
    turns: Option<Buffer>,
    ids: Buffer,
}

/// Writes the plans of a model: from token ids to logits and the ids picked from them, for each shape of work. With
/// `insight`, each layer of a prefill also leaves the weights of its attention.
pub fn decoder(
    architecture: &Architecture,
    weights: &Weights,
    mut buffers: Buffers,
    can: &Capabilities,
    sizes: Sizes,
    insight: bool,
) -> Result<Plans> {
    let head_dim = architecture.head_dim;
    let q = architecture.n_heads * head_dim;
    let kv = architecture.n_kv_heads * head_dim;
    let mut row = |label: &str, width| buffers.activation(label, Per::Row, width);
    let (x, h) = (row("x", architecture.hidden_size), row("h", architecture.hidden_size));
    let (qkv, mixed) = (row("qkv", q + 2 * kv), row("mixed", q));
    let hidden = row("hidden", architecture.intermediate_size);
    let logits = buffers.activation("logits", Per::Output, architecture.vocab_size);
    let scores = buffers.activation("scores", Per::Target, 1);
    let weights_width = architecture.n_heads * sizes.context.min(MOST_SEEN);
    let seen = insight.then(|| buffers.activation("attention_weights", Per::Row, weights_width));
    let a = Activations { x, h, qkv, mixed, hidden, logits, scores, weights: seen };
    let turns = match &architecture.positions {
        Positions::Learned => None,
        Positions::Rotary(rope) => {
            let table = RopeTable::new(rope, head_dim, sizes.context);
            Some(buffers.declare("turns", Content::Loaded(Arc::new(table))))
        }
    };
    let caches = (0..architecture.layers.len())
        .map(|layer| cache(&mut buffers, layer, architecture, can, &sizes))
        .collect::<Result<_>>()?;
    let partials = Partials::declare(&mut buffers, architecture.n_heads, head_dim, can, &sizes);
    let candidates = Candidates::declare(&mut buffers, architecture.vocab_size);
    let ids = buffers.declare("ids", Content::Ids);
    let decoder = Decoder { architecture, weights, a, caches, partials, candidates, turns, ids };
    let [prefill, decode] = Shape::ALL.map(|shape| decoder.plan(shape));
    Ok(Plans { buffers, sizes, prefill, decode, logits, scores, ids, attention_weights: seen })
}

/// The longest context that the model was made for and a device's bindings can hold: a key head's cache is not split.
pub fn longest_context(architecture: &Architecture, can: &Capabilities) -> u32 {
    let positions = can.most_binding / (u64::from(architecture.head_dim) * 8);
    let blocks = positions / u64::from(BLOCK);
    (blocks * u64::from(BLOCK)).min(u64::from(architecture.max_positions)) as u32
}

/// A layer's cache, split by key heads where a binding can't hold all of them.
fn cache(
    buffers: &mut Buffers,
    layer: usize,
    architecture: &Architecture,
    can: &Capabilities,
    sizes: &Sizes,
) -> Result<Cache> {
    let (n_kv_heads, head_dim) = (architecture.n_kv_heads, architecture.head_dim);
    let a_head = u64::from(sizes.blocks) * u64::from(BLOCK) * u64::from(head_dim) * 8;
    let most = (can.most_binding / a_head).min(u64::from(n_kv_heads)) as u32;
    if most == 0 {
        let longest = longest_context(architecture, can);
        return Err(Error::memory(format!(
            "a context of {} is too long for this device: a key head's cache would need a binding of {a_head} bytes \
             of the {} that it allows; ask for at most --ctx {longest}",
            sizes.context, can.most_binding
        )));
    }
    let part = |first: u32| {
        let heads = first..n_kv_heads.min(first + most);
        let stride = 2 * heads.len() as u32 * head_dim;
        let buffer = buffers.declare(format!("{layer}.cache"), Content::Cache { stride });
        CachePart { buffer, heads }
    };
    Ok(Cache { parts: (0..n_kv_heads).step_by(most as usize).map(part).collect(), n_kv_heads, head_dim })
}

impl Decoder<'_> {
    fn plan(&self, shape: Shape) -> Plan {
        let (weights, a) = (self.weights, &self.a);
        let mut plan = Plan::new(shape);
        plan.push(embed(&weights.tokens, By::Token, self.ids, a.x));
        if let Some(positions) = &weights.positions {
            plan.push(embed(positions, By::Position, self.ids, a.x).add());
        }
        for (number, layer) in weights.layers.iter().enumerate() {
            plan.enter(Some(number as u32));
            self.layer(&mut plan, layer, &self.caches[number]);
        }
        plan.enter(None);
        let last = match &weights.final_norm {
            Some(by) => self.norm(&mut plan, a.x, by),
            None => a.x.into(),
        };
        plan.push(matmul(last, &weights.head).to(a.logits));
        plan.push(adjust(a.logits));
        plan.push(sample(a.logits, self.candidates, self.ids));
        // Probabilities are asked of texts that are there.
        if shape == Shape::Prefill {
            plan.push(score(a.logits, a.scores));
        }
        plan
    }

    /// x normalized: by a pass into h where rows are many, else on the way into the matmul that reads it.
    fn norm(&self, plan: &mut Plan, x: Rows, by: &NormWeights) -> Input {
        match plan.shape {
            Shape::Prefill => {
                plan.push(norm(x, by).to(self.a.h));
                self.a.h.into()
            }
            Shape::Decode => normed(x, by),
        }
    }

    /// One layer. The two orders differ only in what each half reads and what it adds to.
    fn layer(&self, plan: &mut Plan, w: &LayerWeights, cache: &Cache) {
        let a = &self.a;
        match self.architecture.norm_order {
            NormOrder::Before => {
                let h = self.norm(plan, a.x, &w.norm1);
                self.attention(plan, w, cache, h, a.x);
                let h = self.norm(plan, a.x, &w.norm2);
                self.mlp(plan, w, h, a.x);
            }
            NormOrder::After => {
                self.attention(plan, w, cache, a.x.into(), a.x);
                plan.push(norm(a.x, &w.norm1).to(a.h));
                self.mlp(plan, w, a.h.into(), a.h);
                plan.push(norm(a.h, &w.norm2).to(a.x));
            }
        }
    }

    /// onto += out(attention(qkv(from)))
    fn attention(&self, plan: &mut Plan, w: &LayerWeights, cache: &Cache, from: Input, onto: Rows) {
        let a = &self.a;
        let qkv = matmul(from, &w.qkv);
        if plan.shape == Shape::Decode && qkv.reaches(cache) {
            plan.push(qkv.cached(a.qkv, self.turns, cache));
        } else {
            plan.push(qkv.to(a.qkv));
            if let Some(turns) = self.turns {
                plan.push(rope(a.qkv, turns, self.architecture.n_heads + cache.n_kv_heads, cache.head_dim));
            }
            plan.push(kv_write(a.qkv, cache));
        }
        if let Some(seen) = a.weights.filter(|_| plan.shape == Shape::Prefill) {
            plan.push(attention_weights(a.qkv, cache, w.scalars, self.architecture.n_heads, seen));
        }
        plan.push(attention(a.qkv, cache, w.scalars, self.partials, a.mixed));
        plan.push(matmul(a.mixed, &w.out).add_to(onto));
    }

    /// onto += down(activation(up(from)))
    fn mlp(&self, plan: &mut Plan, w: &LayerWeights, from: Input, onto: Rows) {
        let a = &self.a;
        let up = matmul(from, &w.up).activation(self.architecture.activation);
        plan.push(up.gated(self.architecture.gated).to(a.hidden));
        plan.push(matmul(a.hidden, &w.down).add_to(onto));
    }
}
