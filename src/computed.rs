//! Checks that there are kernels for an [`Architecture`]: it can describe models that do not run yet.

use crate::{
    architecture::{Architecture, Attention, Layer, Logits, Mlp, Norm, NormWeight, Span},
    error::{Error, Result},
};

/// Checks that there are kernels for all parts of a language model's architecture.
///
/// # Errors
/// Of the kind Model: names the first part without a kernel.
pub fn check(architecture: &Architecture) -> Result<()> {
    let norm = architecture.embedding.norm.map(|_| "a norm of the embedding");
    refuse(architecture, norm.or_else(|| missing(architecture)))
}

/// The same for a vision tower, whose plan begins with a norm of the embedding.
///
/// # Errors
/// As for [`check`].
pub fn check_tower(architecture: &Architecture) -> Result<()> {
    refuse(architecture, missing(architecture))
}

fn refuse(architecture: &Architecture, missing: Option<&str>) -> Result<()> {
    let Some(what) = missing else { return Ok(()) };
    let family = architecture.family;
    Err(Error::model(format!(
        "this {family} model has {what}, which is not computed yet: the README lists the models that run"
    )))
}

/// The first thing that is not computed.
fn missing(architecture: &Architecture) -> Option<&'static str> {
    let Architecture { embedding, logits, layers, .. } = architecture;
    let of_model = [
        (embedding.scale != 1.0, "a scaled embedding"),
        (embedding.positions.is_some_and(|p| p.first != 0), "a first position that is not row 0"),
        (*logits != Logits::PLAIN, "scaled or capped logits"),
        (!architecture.norms().all(has_weights), "a norm without weights, or with weights around 1"),
    ];
    let of_layers = layers.iter().flat_map(|layer| {
        let Layer { attention, mlp, residual_scale, parallel } = layer;
        let (a, b) = (&attention.norms, &mlp.norms);
        let is_mixed = a.of_sum.is_some() && a.before.is_some() || b.of_sum.is_some() && b.before.is_some();
        let of_layer = [
            (*residual_scale != 1.0, "a scaled residual stream"),
            (*parallel, "attention and an MLP side by side"),
            (a.of_output.is_some() || b.of_output.is_some(), "norms of what its layers add"),
            (is_mixed || a.of_sum.is_some() != b.of_sum.is_some(), "norms of sums in a part of its layers"),
        ];
        of_layer.into_iter().chain(of_attention(attention)).chain(of_mlp(mlp))
    });
    of_model.into_iter().chain(of_layers).find(|(is_there, _)| *is_there).map(|(_, what)| what)
}

fn of_attention(attention: &Attention) -> impl Iterator<Item = (bool, &'static str)> {
    let of_q_and_k = attention.qk_norm.as_ref().map(|by| {
        [
            (by.joins_heads, "a norm of all heads of q and k together"),
            (by.after_rope, "a norm of q and k after their rotation"),
            (!has_weights(&by.norm), "a norm of q and k without weights, or with weights around 1"),
        ]
    });
    let others = [
        (attention.soft_cap.is_some(), "capped attention scores"),
        (matches!(attention.span, Span::Chunked(_)), "attention within chunks"),
        (attention.rope.as_ref().is_some_and(|r| r.dims.is_some()), "heads that are rotated in part"),
        (attention.alibi, "attention scores that fall with the distance (ALiBi)"),
        (attention.sinks, "attention sinks"),
        (attention.output_gate, "a gate of attention's output"),
        (attention.temperature.is_some(), "a factor of q that grows with the position"),
    ];
    of_q_and_k.into_iter().flatten().chain(others)
}

fn of_mlp(mlp: &Mlp) -> impl Iterator<Item = (bool, &'static str)> {
    [(mlp.experts.is_some(), "a mixture of experts")].into_iter()
}

fn has_weights(norm: &Norm) -> bool {
    norm.weight == NormWeight::Plain
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        architecture::{
            Embedding, Experts, LearnedPositions, NormKind, QkNorm, SharedExpert, Temperature, Weighing,
        },
        families,
    };
    use serde_json::json;

    /// LLaMA's architecture runs; with each of these changes it is refused by the name of what changed.
    #[test]
    fn what_is_not_computed_is_refused_by_name() {
        type Change = (&'static str, fn(&mut Architecture));
        const NORM: Norm = Norm { kind: NormKind::Rms, epsilon: 1e-5, weight: NormWeight::None };
        const PLAIN: Norm = Norm { weight: NormWeight::Plain, ..NORM };
        let changes: [Change; 21] = [
            ("scaled embedding", |a| a.embedding.scale = 2.0),
            ("first position", |a| {
                a.embedding =
                    Embedding { positions: Some(LearnedPositions { first: 2 }), ..Embedding::TOKENS };
            }),
            ("norm of the embedding", |a| a.embedding.norm = Some(PLAIN)),
            ("capped logits", |a| a.logits.soft_cap = Some(30.0)),
            ("scaled or", |a| a.logits.scale = 0.5),
            ("without weights", |a| a.final_norm = Some(NORM)),
            ("weights around 1", |a| {
                a.layers[1].mlp.norms.before = Some(Norm { weight: NormWeight::OnePlus, ..NORM });
            }),
            ("residual stream", |a| a.layers[0].residual_scale = 0.2),
            ("side by side", |a| a.layers[1].parallel = true),
            ("what its layers add", |a| a.layers[1].mlp.norms.of_output = Some(PLAIN)),
            ("norms of sums", |a| a.layers[1].mlp.norms.of_sum = Some(PLAIN)),
            ("capped attention scores", |a| a.layers[1].attention.soft_cap = Some(50.0)),
            ("chunks", |a| a.layers[1].attention.span = Span::Chunked(8)),
            ("rotated in part", |a| {
                a.layers[1].attention.rope.as_mut().expect("LLaMA's").dims = Some(16);
            }),
            ("all heads", |a| {
                let norm = QkNorm { norm: PLAIN, joins_heads: true, after_rope: false };
                a.layers[1].attention.qk_norm = Some(norm);
            }),
            ("after their rotation", |a| {
                let norm = QkNorm { norm: PLAIN, joins_heads: false, after_rope: true };
                a.layers[1].attention.qk_norm = Some(norm);
            }),
            ("ALiBi", |a| a.layers[1].attention.alibi = true),
            ("sinks", |a| a.layers[1].attention.sinks = true),
            ("gate of attention", |a| a.layers[1].attention.output_gate = true),
            ("grows with the position", |a| {
                a.layers[1].attention.temperature =
                    Some(Temperature { scale: 0.1, interval: 8192, offset: 1 });
            }),
            ("experts", |a| {
                let shared = Some(SharedExpert { intermediate_size: 64, gated: true });
                let weighing = Weighing::Softmax { renormalized: true };
                a.layers[1].mlp.experts = Some(Experts { count: 8, chosen: 2, weighing, shared });
            }),
        ];
        let config = json!({"model_type": "llama", "num_hidden_layers": 2, "tie_word_embeddings": true});
        let (usual, _) = families::read("config.json", &config).expect("a LLaMA");
        check(&usual).expect("what there is");
        for (what, change) in changes {
            let mut changed = usual.clone();
            change(&mut changed);
            let error = check(&changed).expect_err(what).to_string();
            assert!(error.contains(what), "{what}: {error}");
        }
    }
}
