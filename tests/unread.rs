//! Nothing in a checkpoint goes unread: a tensor is used, or changes no text, or the model is refused by its
//! name. `src/families/fields.rs` and `src/families/gguf/keys.rs` have the same tests of config.json and of
//! GGUF's metadata.

use crate::gguf::{changed, logprobs};
use safetensors::{Dtype, tensor::TensorView};
use std::sync::Arc;
use wgpt::{
    error::Result,
    model::Model,
    weights::{Bytes, Format, Gguf, Made, Values},
};

/// Tensors of other models, and of none, which a LLaMA in safetensors files has no use for.
const OF_OTHERS: [&str; 77] = [
    "model.layers.0.self_attn.q_norm.weight",
    "model.layers.0.self_attn.k_norm.weight",
    "model.layers.0.self_attn.q_layernorm.weight",
    "model.layers.0.self_attn.sub_norm.weight",
    "model.layers.0.self_attn.inner_attn_ln.weight",
    "model.layers.0.self_attn.q_proj.bias",
    "model.layers.0.self_attn.k_proj.bias",
    "model.layers.0.self_attn.v_proj.bias",
    "model.layers.0.self_attn.o_proj.bias",
    "model.layers.0.self_attn.qkv_proj.weight",
    "model.layers.0.self_attn.q_a_proj.weight",
    "model.layers.0.self_attn.kv_a_proj_with_mqa.weight",
    "model.layers.0.self_attn.sinks",
    "model.layers.0.self_attn.gate_proj.weight",
    "model.layers.0.self_attn.g_proj.weight",
    "model.layers.0.self_attn.rotary_emb.freqs",
    "model.layers.0.self_attn.rope_factors_long",
    "model.layers.0.self_attn.relative_attention_bias.weight",
    "model.layers.0.self_attn.lambda_q1",
    "model.layers.0.self_attn.indexer.wq_b.weight",
    "model.layers.0.self_attn.q_proj.weight_scale",
    "model.layers.0.self_attn.q_proj.weight_scale_inv",
    "model.layers.0.self_attn.q_proj.input_scale",
    "model.layers.0.self_attn.q_proj.weight_zero_point",
    "model.layers.0.self_attn.q_proj.qweight",
    "model.layers.0.self_attn.q_proj.qzeros",
    "model.layers.0.self_attn.q_proj.scales",
    "model.layers.0.self_attn.q_proj.g_idx",
    "model.layers.0.self_attn.q_proj.weight.absmax",
    "model.layers.0.self_attn.q_proj.weight.quant_map",
    "model.layers.0.self_attn.k_proj.k_scale",
    "model.layers.0.self_attn.q_proj.lora_A.weight",
    "model.layers.0.self_attn.q_proj.lora_B.default.weight",
    "model.layers.0.self_attn.q_proj.lora_magnitude_vector",
    "model.layers.0.self_attn.q_proj.base_layer.weight",
    "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight",
    "model.layers.0.cross_attn.q_proj.weight",
    "model.layers.0.linear_attn.in_proj_qkvz.weight",
    "model.layers.0.mamba.in_proj.weight",
    "model.layers.0.mlp.gate_proj.bias",
    "model.layers.0.mlp.up_proj.bias",
    "model.layers.0.mlp.down_proj.bias",
    "model.layers.0.mlp.gate_up_proj.weight",
    "model.layers.0.mlp.ffn_layernorm.weight",
    "model.layers.0.mlp.gate.weight",
    "model.layers.0.mlp.gate.e_score_correction_bias",
    "model.layers.0.mlp.router.weight",
    "model.layers.0.mlp.router.bias",
    "model.layers.0.mlp.experts.0.up_proj.weight",
    "model.layers.0.mlp.experts.gate_up_proj_blocks",
    "model.layers.0.mlp.shared_expert.up_proj.weight",
    "model.layers.0.mlp.shared_expert_gate.weight",
    "model.layers.0.block_sparse_moe.gate.weight",
    "model.layers.0.input_layernorm.bias",
    "model.layers.0.post_attention_layernorm.bias",
    "model.layers.0.pre_feedforward_layernorm.weight",
    "model.layers.0.post_feedforward_layernorm.weight",
    "model.layers.0.post_layernorm.weight",
    "model.layers.0.layer_scalar",
    "model.layers.0.per_layer_input_gate.weight",
    "model.layers.0.attn.bias",
    "model.layers.5.input_layernorm.weight",
    "model.norm.bias",
    "model.embed_positions.weight",
    "model.embed_norm.weight",
    "model.embed_tokens_per_layer.weight",
    "model.token_type_embeddings.weight",
    "model.mtp.lm_head.weight",
    "lm_head.bias",
    "score.weight",
    "classifier.weight",
    "qa_outputs.weight",
    "value_head.weight",
    "vision_tower.vision_model.post_layernorm.weight",
    "multi_modal_projector.linear_1.weight",
    "rope_freqs.weight",
    "a_tensor_of_nobody",
];

/// Buffers that follow from a model's sizes, and heads for other tasks.
const ASIDE: [&str; 9] = [
    "model.embeddings.position_ids",
    "model.layers.0.self_attn.rotary_emb.inv_freq",
    "model.layers.0.self_attn.rotary_emb.cos_cached",
    "model.layers.0.self_attn.rotary_emb.sin_cached",
    "model.layers.0.attn.masked_bias",
    "v_head.summary.weight",
    "v_head.summary.bias",
    "multiple_choice_head.summary.weight",
    "multiple_choice_head.summary.bias",
];

/// The built-in model with one more tensor, checked against what it needs.
fn with(name: &str, shape: Vec<usize>) -> Result<()> {
    let (mut model, _) = Model::built_in().expect("the built-in model");
    let zeros = vec![0; 4 * shape.iter().product::<usize>()];
    let tensor = TensorView::new(Dtype::F32, shape, &zeros).expect("a tensor");
    let file = safetensors::serialize([(name, tensor)], None).expect("a file");
    model.checkpoint.add("more.safetensors", Bytes::new(file)).expect("another tensor");
    model.tensors.tie(&model.checkpoint);
    model.tensors.make(&[], &model.checkpoint).map(|_| ())
}

#[test]
fn tensors_in_safetensors_are_used_or_refused() {
    for name in OF_OTHERS {
        let error = with(name, vec![2]).expect_err(name).to_string();
        assert!(error.contains(&format!("\n  {name} ")) && error.contains("unexpected"), "{error}");
    }
    for name in ASIDE {
        with(name, vec![2]).expect(name);
    }
    // A head, though config.json says that it is the embedding.
    let error = with("lm_head.weight", vec![512, 32]).expect_err("a head of another width").to_string();
    assert!(error.contains("lm_head.weight") && error.contains("mis-shaped"), "{error}");
}

fn vector(len: usize) -> Made {
    let contents = Arc::new(Values((0..len).map(|i| 0.5 + i as f32 / 100.0).collect()));
    Made { shape: vec![len], format: Format::F32, contents }
}

#[test]
fn tensors_in_gguf_are_used_or_refused() {
    let usual = logprobs(changed(|shape| shape, Vec::new()));
    let q_k_v = [("blk.0.attn_q.bias", 256), ("blk.0.attn_k.bias", 128), ("blk.0.attn_v.bias", 128)];
    let gate_up = [("blk.0.ffn_gate.bias", 512), ("blk.0.ffn_up.bias", 512)];
    let more = |tensors: &[(&str, usize)]| {
        let made = tensors.iter().map(|(name, len)| ((*name).to_owned(), vector(*len)));
        changed(|shape| shape, made.collect())
    };
    for used in [
        &q_k_v[..],
        &gate_up,
        &[("blk.0.attn_output.bias", 256)],
        &[("blk.0.ffn_down.bias", 256)],
        &[("rope_freqs.weight", 32)],
    ] {
        assert_ne!(logprobs(more(used)), usual, "{used:?}");
    }
    let refused = |tensors: &[(&str, usize)], name: &str| {
        let gguf = Gguf::read("file", Bytes::new(more(tensors))).expect("a GGUF file");
        let model = Model::from_gguf("file".to_owned(), &gguf).expect("a model");
        let error = model.tensors.make(&[], &model.checkpoint).map(|_| ());
        let error = error.expect_err(name).to_string();
        assert!(error.contains(&format!("\n  {name} ")), "{error}");
    };
    refused(&q_k_v[..2], "blk.0.attn_v.bias");
    refused(&gate_up[1..], "blk.0.ffn_gate.bias");
    // What llama.cpp's other architectures have in a layer.
    for name in [
        "attn_q_norm",
        "attn_k_norm",
        "attn_sub_norm",
        "attn_norm_2",
        "attn_output_norm",
        "attn_qkv",
        "attn_gate",
        "attn_sinks",
        "attn_rot_embd",
        "attn_rel_b",
        "attn_q_a",
        "attn_kv_b",
        "post_attention_norm",
        "post_ffw_norm",
        "post_norm",
        "ffn_sub_norm",
        "ffn.act",
        "ffn_gate_inp",
        "ffn_gate_inp_shexp",
        "ffn_gate_exps",
        "ffn_gate_up_exps",
        "ffn_gate_shexp",
        "ffn_gate.0",
        "exp_probs_b",
        "layer_output_norm",
        "layer_output_scale",
        "inp_gate",
        "proj",
        "rope_freqs",
        "ssm_in",
        "shortconv.conv",
        "indexer.proj",
        "laurel_l",
        "altup_router",
        "nextn.eh_proj",
        "vis_gate",
        "a_tensor_of_nobody",
    ] {
        let name = format!("blk.0.{name}.weight");
        refused(&[(&name, 2)], &name);
    }
    for name in [
        "blk.0.attn_q.scale",
        "blk.0.attn_q.input_scale",
        "blk.0.attn_q.weight.lora_a",
        "blk.0.attn_norm.bias",
        "blk.0.ffn_norm.bias",
        "blk.1.attn_norm.weight",
        "output.bias",
        "output.scale",
        "output_norm.bias",
        "cls.weight",
        "cls.output.weight",
        "dense_2.weight",
        "position_embd.weight",
        "token_types.weight",
        "token_embd_norm.weight",
        "per_layer_token_embd.weight",
        "rope_factors_long.weight",
        "rope_factors_short.weight",
        "enc.blk.0.attn_q.weight",
        "v.patch_embd.weight",
        "mm.0.weight",
        "a_tensor_of_nobody",
    ] {
        refused(&[(name, 2)], name);
    }
}
