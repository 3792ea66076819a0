//! An architecture → GGUF metadata and tensor names, chosen as llama.cpp's converter chooses them.

use crate::{
    architecture::{Activation, Architecture, Mlp, NormKind, RopeScaling, Span},
    error::{Error, Remedy, Result},
    weights::{LayerTensors, ModelTensors, TensorSpec, Writer},
};

/// Writes the metadata of an architecture. Returns the contents of the `rope_freqs.weight` tensor, if the
/// file needs one.
///
/// # Errors
/// Of the kind Model where GGUF metadata cannot describe this architecture.
pub fn write(a: &Architecture, name: &str, file: &mut Writer) -> Result<Option<Vec<f32>>> {
    let family = match a.family {
        "gpt2" => "gpt2",
        "llama" | "mistral" => "llama",
        kin @ ("qwen2" | "qwen3" | "smollm3") => kin,
        other => return Err(unsaid(&format!("a model of the family {other}"))),
    };
    if let Some(what) = unsayable(a) {
        return Err(unsaid(what));
    }
    let key = |field: &str| format!("{family}.{field}");
    file.text("general.architecture", family);
    file.text("general.type", "model");
    file.text("general.name", name);
    for (field, value) in [
        ("vocab_size", a.vocab_size),
        ("context_length", a.max_positions),
        ("embedding_length", a.hidden_size),
        ("block_count", a.layers.len() as u32),
        ("feed_forward_length", a.intermediate_size()),
        ("attention.head_count", a.n_heads),
        ("attention.head_count_kv", a.n_kv_heads),
    ] {
        file.count(&key(field), value);
    }
    if let Some(norm) = a.norms().next() {
        let epsilon =
            if norm.kind == NormKind::Rms { "layer_norm_rms_epsilon" } else { "layer_norm_epsilon" };
        file.number(&key(&format!("attention.{epsilon}")), norm.epsilon);
    }
    let Some(rope) = a.ropes().first().copied() else { return Ok(None) };
    file.count(&key("attention.key_length"), a.head_dim);
    file.count(&key("attention.value_length"), a.head_dim);
    file.count(&key("rope.dimension_count"), a.head_dim);
    file.number(&key("rope.freq_base"), rope.theta as f32);
    let scaled = |file: &mut Writer, kind: &str, factor: f64| {
        file.text(&key("rope.scaling.type"), kind);
        file.number(&key("rope.scaling.factor"), factor as f32);
    };
    match &rope.scaling {
        RopeScaling::None => (),
        RopeScaling::Linear { factor } => scaled(file, "linear", *factor),
        RopeScaling::Factors(factors) => return Ok(Some(factors.clone())),
        RopeScaling::Llama3 { .. } => return Ok(Some(rope.stretches(a.head_dim))),
        &RopeScaling::Yarn { factor, beta_fast, beta_slow, original, attention_factor, .. } => {
            scaled(file, "yarn", factor);
            file.count(&key("rope.scaling.original_context_length"), original as u32);
            file.number(&key("rope.scaling.yarn_beta_fast"), beta_fast as f32);
            file.number(&key("rope.scaling.yarn_beta_slow"), beta_slow as f32);
            let usual = if factor <= 1.0 { 1.0 } else { 0.1 * factor.ln() + 1.0 };
            file.number(&key("rope.scaling.attn_factor"), (attention_factor / usual) as f32);
        }
    }
    Ok(None)
}

fn unsaid(what: &str) -> Error {
    Error::model(format!("a GGUF file cannot hold {what}")).with_remedy(Remedy::QuantizeAtLoad)
}

/// What GGUF metadata cannot say about a model, if anything: a detail that readers of the file take from the
/// family.
fn unsayable(a: &Architecture) -> Option<&'static str> {
    let scale = 1.0 / (a.head_dim as f32).sqrt();
    let usual = |mlp: &Mlp| mlp.activation == if mlp.gated { Activation::Silu } else { Activation::GeluTanh };
    if a.layers.iter().any(|layer| !usual(&layer.mlp)) {
        return Some("a model with another activation than its family's");
    }
    if a.layers.iter().any(|layer| layer.attention.scale != scale) {
        return Some("a model whose attention is scaled in its own way");
    }
    let is_short = |span| matches!(span, Span::Sliding(n) | Span::Chunked(n) if n < a.max_positions);
    if a.layers.iter().any(|layer| is_short(layer.attention.span)) {
        return Some("a model whose attention sees only a window");
    }
    let is_rotary = |layer: usize| a.family != "smollm3" || !(layer + 1).is_multiple_of(4);
    let mut layers = a.layers.iter().enumerate().filter(|_| a.embedding.positions.is_none());
    if layers.any(|(number, layer)| layer.attention.rope.is_some() != is_rotary(number)) {
        return Some("a model whose layers without rotary positions are not every fourth");
    }
    match &a.ropes()[..] {
        [] => None,
        [rope] => matches!(rope.scaling, RopeScaling::Yarn { truncate: false, .. })
            .then_some("YaRN without truncation"),
        _ => Some("a model whose layers have rotary positions of several kinds"),
    }
}

/// Whether GGUF files of a family keep Hugging Face's order of the rows of q and k: the two values of a
/// rotary pair are half a head apart.
pub fn keeps_order(family: &str) -> bool {
    ["qwen2", "qwen3"].contains(&family)
}

/// Every tensor of a model, with its name in a GGUF file.
pub fn names(tensors: &ModelTensors) -> Vec<(String, &TensorSpec)> {
    let mut all = vec![("token_embd.weight".to_owned(), &tensors.tokens)];
    all.extend(tensors.positions.iter().map(|spec| ("position_embd.weight".to_owned(), spec)));
    for (number, layer) in tensors.layers.iter().enumerate() {
        let at = |name: &str, what: &str| format!("blk.{number}.{name}.{what}");
        let LayerTensors { attention, mlp } = layer;
        let qkv: &[_] =
            if attention.qkv.len() == 1 { &["attn_qkv"] } else { &["attn_q", "attn_k", "attn_v"] };
        let up: &[_] = if mlp.up.len() == 1 { &["ffn_up"] } else { &["ffn_gate", "ffn_up"] };
        for (names, specs, what) in [
            (qkv, &attention.qkv, "weight"),
            (qkv, &attention.qkv_bias, "bias"),
            (up, &mlp.up, "weight"),
            (up, &mlp.up_bias, "bias"),
        ] {
            all.extend(names.iter().zip(specs).map(|(name, spec)| (at(name, what), spec)));
        }
        for (name, spec) in ["attn_q_norm", "attn_k_norm"].iter().zip(attention.qk_norm.iter().flatten()) {
            all.push((at(name, "weight"), spec));
        }
        all.extend([(at("attn_output", "weight"), &attention.out), (at("ffn_down", "weight"), &mlp.down)]);
        all.extend(attention.out_bias.iter().map(|spec| (at("attn_output", "bias"), spec)));
        all.extend(mlp.down_bias.iter().map(|spec| (at("ffn_down", "bias"), spec)));
        for (name, norms) in [("attn_norm", &attention.norms), ("ffn_norm", &mlp.norms)] {
            if let Some(norm) = &norms.before {
                all.push((at(name, "weight"), &norm.weight));
                all.extend(norm.bias.iter().map(|spec| (at(name, "bias"), spec)));
            }
        }
    }
    if let Some(norm) = &tensors.final_norm {
        all.push(("output_norm.weight".to_owned(), &norm.weight));
        all.extend(norm.bias.iter().map(|spec| ("output_norm.bias".to_owned(), spec)));
    }
    all.extend(tensors.head.iter().map(|spec| ("output.weight".to_owned(), spec)));
    all
}
