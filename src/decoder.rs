//! Writes the plans of a model from its architecture and weights: the one decoder for all families, and the
//! vision encoder. Each line that pushes is one pass.

use crate::{
    architecture::{Architecture, Attention, Mlp, Norms, Rope, Vision},
    buffers::{BLOCK, Buffer, Buffers, Content, Per, Rows, Sizes},
    capabilities::Capabilities,
    computed,
    error::{Error, Remedy, Result},
    kernels::{
        By, Cache, CachePart, Candidates, Input, Partials, RopeTable, activate, adjust, attention,
        attention_weights, embed, hadamard, head_norm, kv_write, matmul, norm, normed, rope, sample,
        scale_adapter, score, splice,
    },
    kv_format::KvFormat,
    plan::{Mark, Plan, Plans, Ports},
    weights::{AttentionWeights, LayerWeights, Matrix, MlpWeights, NormWeights, VisionWeights, Weights},
    workload::Phase,
};
use std::sync::Arc;

/// The most tokens of a prompt for [`crate::engine::Engine::insight`]: attention weights grow with their
/// square.
pub const MAX_INSIGHT_TOKENS: u32 = 256;

/// The activations between passes, `[rows, …]` each. All layers share them: each pass waits for the one
/// before it in any case, so separate buffers per layer would save no barrier.
struct Activations {
    /// The residual stream, `[rows, hidden]`.
    x: Rows,
    /// x after a norm, `[rows, hidden]`.
    h: Rows,
    /// `[rows, (n_heads + 2 n_kv_heads) · head_dim]`
    qkv: Rows,
    /// The output of attention before its projection, `[rows, n_heads · head_dim]`.
    attn_out: Rows,
    /// The hidden values of the MLP, `[rows, intermediate]`.
    mlp_hidden: Rows,
    /// The attention weights, for plans with insight.
    weights: Option<Rows>,
    /// Between the two factors of what adapters change, `[rows, rank]`: as many as the largest has.
    low_rank: Option<Rows>,
    /// What adapters change of the MLP's first product before its activation, `[rows, rows of up]`.
    up: Option<Rows>,
}

impl Activations {
    fn declare(buffers: &mut Buffers, architecture: &Architecture) -> Self {
        let mut row = |label: &str, width| buffers.activation(label, Per::Row, width);
        let q = architecture.n_heads * architecture.head_dim;
        let kv = architecture.n_kv_heads * architecture.head_dim;
        Self {
            x: row("x", architecture.hidden_size),
            h: row("h", architecture.hidden_size),
            qkv: row("qkv", q + 2 * kv),
            attn_out: row("attn_out", q),
            mlp_hidden: row("mlp_hidden", architecture.intermediate_size()),
            weights: None,
            low_rank: None,
            up: None,
        }
    }

    /// What the products of adapters need, where there are any.
    fn declare_for_adapters(&mut self, buffers: &mut Buffers, layers: &[LayerWeights]) {
        let ranks = layers.iter().flat_map(LayerWeights::matrices).filter_map(|w| w.low_rank.as_ref());
        let rank = ranks.map(|low_rank| low_rank.rank()).max();
        self.low_rank = rank.map(|rank| buffers.activation("low_rank", Per::Row, rank));
        let changed = layers.iter().map(|layer| &layer.mlp.up).filter(|up| up.low_rank.is_some());
        self.up = changed.map(|up| up.rows).max().map(|width| buffers.activation("up", Per::Row, width));
    }
}

/// The buffers and settings that all layers share.
struct Layers<'a> {
    architecture: &'a Architecture,
    a: Activations,
    partials: Partials,
    /// A table of cos and sin for each kind of rotary positions.
    rope_tables: Vec<(&'a Rope, Buffer)>,
}

/// Everything that the plans of a language model refer to.
struct Decoder<'a> {
    layers: Layers<'a>,
    weights: &'a Weights,
    /// The embeddings of image tokens, for models with vision.
    features: Option<Rows>,
    logits: Rows,
    /// The log-probabilities of the targets.
    scores: Rows,
    caches: Vec<Cache>,
    candidates: Candidates,
    ids: Buffer,
}

/// The plans of a language model, one per phase: from token ids to logits and the sampled ids. With
/// `insight`, each layer of a prefill also writes its attention weights.
///
/// # Errors
/// Of the kind Model if there is no kernel for something that the architecture says, of the kind Memory if
/// the cache of one key head does not fit into a binding.
pub fn decoder(
    architecture: &Architecture,
    weights: &Weights,
    mut buffers: Buffers,
    can: &Capabilities,
    sizes: Sizes,
    insight: bool,
) -> Result<Plans> {
    computed::check(architecture)?;
    let head_dim = architecture.head_dim;
    let mut a = Activations::declare(&mut buffers, architecture);
    let logits = buffers.activation("logits", Per::Output, architecture.vocab_size);
    let scores = buffers.activation("scores", Per::Target, 1);
    let weights_width = architecture.n_heads * sizes.context.min(MAX_INSIGHT_TOKENS);
    a.weights = insight.then(|| buffers.activation("attention_weights", Per::Row, weights_width));
    a.declare_for_adapters(&mut buffers, &weights.layers);
    let has_vision = architecture.vision.is_some();
    let features = has_vision.then(|| buffers.activation("features", Per::Row, architecture.hidden_size));
    let mut rope_tables = Vec::new();
    for rope in architecture.ropes() {
        let table = RopeTable::new(rope, head_dim, sizes.context);
        rope_tables.push((rope, buffers.declare("rope_table", Content::Loaded(Arc::new(table)))));
    }
    let caches = (0..architecture.layers.len())
        .map(|layer| cache(&mut buffers, layer, architecture, can, &sizes))
        .collect::<Result<_>>()?;
    let partials = Partials::declare(&mut buffers, architecture.n_heads, head_dim, can, &sizes);
    let candidates = Candidates::declare(&mut buffers, architecture.vocab_size);
    let ids = buffers.declare("ids", Content::Ids);
    let layers = Layers { architecture, a, partials, rope_tables };
    let attention_weights = layers.a.weights;
    // Where a prefill leaves what its last norm, if there is one, gives.
    let hidden = if weights.final_norm.is_some() { layers.a.h } else { layers.a.x };
    let decoder = Decoder { layers, weights, features, logits, scores, caches, candidates, ids };
    let plans = Phase::ALL.map(|phase| decoder.plan(phase)).into();
    let [logits, scores, hidden] = [logits, scores, hidden].map(Some);
    let ids = Some(ids);
    let ports = Ports { logits, scores, hidden, ids, attention_weights, features, ..Ports::default() };
    Ok(Plans { buffers, sizes, plans, ports })
}

/// The plan of a vision encoder. Its rows are all positions of the tower; it turns `pixels`, which the host
/// writes, into the embeddings of an image's tokens, `[positions, width]`.
///
/// # Errors
/// As for [`decoder`]; of the kind Memory if a buffer does not fit into a binding.
pub fn vision(
    vision: &Vision,
    weights: &VisionWeights,
    mut buffers: Buffers,
    can: &Capabilities,
    width: u32,
) -> Result<Plans> {
    let architecture = &vision.tower;
    computed::check_tower(architecture)?;
    let positions = architecture.max_positions;
    let blocks = positions.div_ceil(BLOCK);
    let sizes = Sizes {
        rows: [positions, 1],
        outputs: 1,
        sequences: 1,
        guesses: 0,
        adapters: 0,
        context: positions,
        blocks,
    };
    let pixels = buffers.activation("pixels", Per::Row, vision.patch_values());
    let a = Activations::declare(&mut buffers, architecture);
    let projected = buffers.activation("projected", Per::Row, width);
    let features = buffers.activation("features", Per::Row, width);
    // All layers share one small cache, so there is nothing to gain by a format that is less exact.
    let exact = Capabilities { kv_format: KvFormat::F32, ..can.clone() };
    let cache = cache(&mut buffers, 0, architecture, &exact, &sizes)?;
    let partials = Partials::declare(&mut buffers, architecture.n_heads, architecture.head_dim, can, &sizes);
    let ids = buffers.declare("ids", Content::Ids);
    let largest = buffers.all().map(|buffer| buffers.bytes(buffer, &sizes)).max().unwrap_or(0);
    if largest > can.max_binding {
        return Err(Error::memory(format!(
            "an image of {positions} positions is too large for this device: what is made of it would \
             need a binding of {largest} bytes of the {} that it allows",
            can.max_binding
        ))
        .with_remedy(Remedy::UseCpu));
    }
    let layers = Layers { architecture, a, partials, rope_tables: Vec::new() };
    let a = &layers.a;
    let mut plan = Plan::new(Phase::Prefill);
    plan.push(matmul(pixels, &weights.patches).to(a.h));
    plan.push(embed(&weights.positions, By::Position, ids, a.h).add());
    plan.push(norm(a.h, &weights.norm).to(a.x));
    for (number, layer) in weights.layers.iter().enumerate() {
        plan.enter(Some(number as u32));
        // No later step reads the cache of an image, so all layers share one.
        layers.layer(&mut plan, number, layer, &cache);
    }
    plan.enter(None);
    let [first, second] = &weights.project;
    plan.push(matmul(a.x, first).activation(vision.activation).to(projected));
    plan.push(matmul(projected, second).to(features));
    let ports = Ports { pixels: Some(pixels), encoded: Some(features), ..Ports::default() };
    Ok(Plans { buffers, sizes, plans: vec![plan], ports })
}

/// The longest context that the model was made for and that the device can hold: the cache of one key head
/// must fit into a binding.
pub fn longest_context(architecture: &Architecture, can: &Capabilities) -> u32 {
    let format = can.kv_format.of_heads(architecture.head_dim);
    let positions = can.max_binding / (4 * u64::from(format.slot_words(architecture.head_dim)));
    let blocks = positions / u64::from(BLOCK);
    (blocks * u64::from(BLOCK)).min(u64::from(architecture.max_positions)) as u32
}

/// A layer's cache, split by key heads if a binding cannot hold all of them.
fn cache(
    buffers: &mut Buffers,
    layer: usize,
    architecture: &Architecture,
    can: &Capabilities,
    sizes: &Sizes,
) -> Result<Cache> {
    let (n_kv_heads, head_dim) = (architecture.n_kv_heads, architecture.head_dim);
    let slots = u64::from(sizes.blocks) * u64::from(BLOCK);
    let format = can.kv_format.of_heads(head_dim);
    let a_head = slots * 4 * u64::from(format.slot_words(head_dim));
    let most = (can.max_binding / a_head).min(u64::from(n_kv_heads)) as u32;
    if most == 0 {
        let longest = longest_context(architecture, can);
        return Err(Error::memory(format!(
            "a context of {} is too long for this device: a key head's cache would need a binding of \
             {a_head} bytes of the {} that it allows",
            sizes.context, can.max_binding
        ))
        .with_remedy(Remedy::LowerContextTo(longest)));
    }
    let part = |first: u32| {
        let heads = first..n_kv_heads.min(first + most);
        let stride = format.slot_words(heads.len() as u32 * head_dim);
        let buffer = buffers.declare(format!("{layer}.cache"), Content::Cache { stride, format });
        CachePart { buffer, format, heads, head_dim }
    };
    Ok(Cache { parts: (0..n_kv_heads).step_by(most as usize).map(part).collect(), n_kv_heads, head_dim })
}

impl Decoder<'_> {
    fn plan(&self, phase: Phase) -> Plan {
        let Self { weights, layers, .. } = self;
        let a = &layers.a;
        let mut plan = Plan::new(phase);
        plan.push(embed(&weights.tokens, By::Token, self.ids, a.x));
        if let Some(positions) = &weights.positions {
            plan.push(embed(positions, By::Position, self.ids, a.x).add());
        }
        // Images occur in prompts only.
        if let Some(features) = self.features.filter(|_| phase == Phase::Prefill) {
            plan.push(splice(features, a.x));
        }
        for (number, layer) in weights.layers.iter().enumerate() {
            plan.enter(Some(number as u32));
            layers.layer(&mut plan, number, layer, &self.caches[number]);
        }
        plan.enter(None);
        let last = match &weights.final_norm {
            Some(by) => layers.norm(&mut plan, a.x, by),
            None => a.x.into(),
        };
        plan.push_marked(Mark::Head, matmul(last, &weights.head).to(self.logits));
        plan.push(adjust(self.logits));
        plan.push(sample(self.logits, self.candidates, self.ids));
        // Only the tokens of a given text are scored.
        if phase == Phase::Prefill {
            plan.push(score(self.logits, self.scores));
        }
        plan
    }
}

impl Layers<'_> {
    /// x after a norm: in a prefill by a pass of its own into h, in a decode as a part of the matmul that
    /// reads it.
    fn norm(&self, plan: &mut Plan, x: Rows, by: &NormWeights) -> Input {
        match plan.phase {
            Phase::Prefill => {
                plan.push(norm(x, by).to(self.a.h));
                self.a.h.into()
            }
            Phase::Decode => normed(x, by),
        }
    }

    /// One layer.
    fn layer(&self, plan: &mut Plan, number: usize, w: &LayerWeights, cache: &Cache) {
        let layer = &self.architecture.layers[number];
        let x = self.half(plan, &w.attention.norms, self.a.x, |plan, from, onto| {
            self.attention(plan, &layer.attention, &w.attention, cache, from, onto);
        });
        let x = self.half(plan, &w.mlp.norms, x, |plan, from, onto| {
            self.mlp(plan, &layer.mlp, &w.mlp, from, onto);
        });
        assert_eq!(x, self.a.x, "norms of the sum come in pairs, as computed.rs checks");
    }

    /// x += compute(norm(x)), with the norms that this half of a layer has. Returns where the residual stream
    /// is then: a norm of the sum moves it between x and h.
    fn half(
        &self,
        plan: &mut Plan,
        norms: &Norms<NormWeights>,
        x: Rows,
        compute: impl FnOnce(&mut Plan, Input, Rows),
    ) -> Rows {
        let a = &self.a;
        let from = match &norms.before {
            Some(by) => self.norm(plan, x, by),
            None => x.into(),
        };
        compute(plan, from, x);
        let Some(by) = &norms.of_sum else { return x };
        let to = if x == a.x { a.h } else { a.x };
        plan.push(norm(x, by).to(to));
        to
    }

    /// onto += out(attention(qkv(from)))
    fn attention(
        &self,
        plan: &mut Plan,
        layer: &Attention,
        w: &AttentionWeights,
        cache: &Cache,
        from: Input,
        onto: Rows,
    ) {
        let a = &self.a;
        let table_of = |rope: &Rope| self.rope_tables.iter().find(|(known, _)| *known == rope);
        let rope_table = layer.rope.as_ref().and_then(table_of).map(|(_, table)| *table);
        let qkv = matmul(from, &w.qkv);
        // Norms of q and k, and what adapters add to them, come between the product and the rotation, so then
        // these cannot be one pass.
        let is_final = w.qk_norm.is_none() && w.qkv.low_rank.is_none();
        if plan.phase == Phase::Decode && is_final && qkv.can_fuse_kv_write(cache) {
            plan.push(qkv.rope_and_cache(a.qkv, rope_table, cache));
        } else {
            plan.push(qkv.to(a.qkv));
            self.adapt(plan, from, &w.qkv, a.qkv);
            if let Some(by) = &w.qk_norm {
                plan.push(head_norm(a.qkv, by, self.architecture.n_heads, cache.n_kv_heads));
            }
            if let Some(rope_table) = rope_table {
                plan.push(rope(
                    a.qkv,
                    rope_table,
                    self.architecture.n_heads + cache.n_kv_heads,
                    cache.head_dim,
                ));
            }
            if cache.is_quantised() {
                plan.push(hadamard(a.qkv, cache.head_dim));
            }
            plan.push(kv_write(a.qkv, cache));
        }
        if let Some(seen) = a.weights.filter(|_| plan.phase == Phase::Prefill) {
            plan.push(attention_weights(a.qkv, cache, w.scalars, self.architecture.n_heads, seen));
        }
        plan.push(attention(a.qkv, cache, w.scalars, self.partials, a.attn_out));
        if cache.is_quantised() {
            // It mixed values that were turned: this turns them back.
            plan.push(hadamard(a.attn_out, cache.head_dim));
        }
        plan.push(matmul(a.attn_out, &w.out).add_to(onto));
        self.adapt(plan, a.attn_out.into(), &w.out, onto);
    }

    /// onto += down(activation(up(from)))
    fn mlp(&self, plan: &mut Plan, layer: &Mlp, w: &MlpWeights, from: Input, onto: Rows) {
        let hidden = Rows { width: layer.intermediate_size, ..self.a.mlp_hidden };
        match self.a.up.filter(|_| w.up.low_rank.is_some()) {
            // What adapters add comes before the activation.
            Some(up) => {
                let up = Rows { width: w.up.rows, ..up };
                plan.push(matmul(from, &w.up).to(up));
                self.adapt(plan, from, &w.up, up);
                plan.push(activate(up, layer.activation, hidden));
            }
            None => {
                let up = matmul(from, &w.up).activation(layer.activation);
                plan.push(up.gated(layer.gated).to(hidden));
            }
        }
        plan.push(matmul(hidden, &w.down).add_to(onto));
        self.adapt(plan, hidden.into(), &w.down, onto);
    }

    /// onto += B (scale · A x): what adapters change of the product of `w` and x.
    fn adapt(&self, plan: &mut Plan, x: Input, w: &Matrix, onto: Rows) {
        let Some((low_rank, between)) = w.low_rank.as_ref().zip(self.a.low_rank) else { return };
        let between = Rows { width: low_rank.rank(), ..between };
        plan.push(matmul(x, &low_rank.a).to(between));
        for (adapter, part) in &low_rank.adapters {
            plan.push(scale_adapter(between, part.clone(), *adapter));
        }
        plan.push(matmul(between, &low_rank.b).add_to(onto));
    }
}
