//! LLaVA (Liu et al. 2023), `llava`: a CLIP vision tower encodes an image, and a projector of two matrices
//! maps its hidden states to the width of a LLaMA or Mistral, which takes them in place of token embeddings.

use super::{fields, llama, norm};
use crate::{
    architecture::{Architecture, Attention, Embedding, Layer, Logits, Mlp, Norm, NormKind, Norms, Vision},
    config::Config,
    error::Result,
    weights::{AttentionTensors, LayerTensors, MlpTensors, ModelTensors, TensorSpec, VisionTensors},
};
use serde_json::{Value, json};

/// Prefixes of tensor names. Older checkpoints nest them differently: see `spellings`.
const TEXT: &str = "model.language_model.";
const TOWER: &str = "model.vision_tower.vision_model.";

pub fn read(config: &Config) -> Result<(Architecture, ModelTensors)> {
    let absent = json!({});
    let text_name = format!("{}'s text_config", config.name());
    let text = Config::new(&text_name, config.get("text_config").unwrap_or(&absent))?;
    config.know(&["vocab_size", "image_token_index"]);
    let (text_architecture, text_tensors) = match text.str("model_type")?.unwrap_or("llama") {
        "llama" => llama::llama_named(&text, TEXT)?,
        "mistral" => llama::mistral_named(&text, TEXT)?,
        _ => {
            return Err(
                text.wrong("model_type", "what sees images here speaks as one of these: llama, mistral")
            );
        }
    };
    fields::judge(&text, text_architecture.family)?;
    let (vision, vision_tensors) = vision(config, &text_architecture)?;
    // The head is tied if either this config or the text's own says so.
    let is_tied = config.bool("tie_word_embeddings", false)?;
    // Of what the tower's last norm makes, nothing is used.
    let unused_norm = ["weight", "bias"].map(|part| format!("{TOWER}post_layernorm.{part}"));
    let tensors = ModelTensors {
        spellings: &[
            (TEXT, "language_model.model."),
            ("lm_head.", "language_model.lm_head."),
            (TOWER, "vision_tower.vision_model."),
            (TOWER, "vision_tower."),
            (TOWER, "model.vision_tower."),
            ("model.multi_modal_projector.", "multi_modal_projector."),
        ],
        ignored: ["lm_head.weight".to_owned()].into_iter().chain(unused_norm).collect(),
        vision: Some(vision_tensors),
        head: text_tensors.head.filter(|_| !is_tied),
        ..text_tensors
    };
    let or = |own: Vec<u32>, of_text: Vec<u32>| if own.is_empty() { of_text } else { own };
    let architecture = Architecture {
        family: "llava",
        bos: or(config.ids("bos_token_id"), text_architecture.bos),
        eos: or(config.ids("eos_token_id"), text_architecture.eos),
        vision: Some(Box::new(vision)),
        ..text_architecture
    };
    Ok((architecture, tensors))
}

fn vision(config: &Config, text: &Architecture) -> Result<(Vision, VisionTensors)> {
    // The tower where vision_config is absent: the ViT-L/14 of the first LLaVA.
    let usual = json!({
        "hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24, "num_attention_heads": 16,
        "image_size": 336, "patch_size": 14,
    });
    let name = format!("{}'s vision_config", config.name());
    let own = Config::new(&name, config.get("vision_config").unwrap_or(&usual))?;
    own.know(&["vocab_size"]);
    if own.str("model_type")?.is_some_and(|kind| kind != "clip_vision_model") {
        return Err(own.wrong("model_type", "the towers there are: clip_vision_model"));
    }
    if own.size("num_channels", 3)? != 3 {
        return Err(own.wrong("num_channels", "images have three colours here"));
    }
    let (tower, image_size, patch_size) = tower(&own)?;
    fields::judge(&own, tower.family)?;
    let n_layers = tower.layers.len();
    let layers_run = match config.get("vision_feature_layer") {
        None => n_layers.checked_sub(1),
        Some(layer) => layer.as_i64().and_then(|layer| {
            // Layer 0 is the embeddings; a negative number counts from the end.
            let layer = if layer < 0 { n_layers as i64 + 1 + layer } else { layer };
            usize::try_from(layer).ok().filter(|layer| *layer <= n_layers)
        }),
    };
    let layers_run = layers_run.ok_or_else(|| {
        config.wrong(
            "vision_feature_layer",
            format!("one layer from {} to {n_layers} belongs there", -1 - n_layers as i64),
        )
    })?;
    let keeps_class = match config.str("vision_feature_select_strategy")?.unwrap_or("default") {
        "default" => false,
        "full" => true,
        _ => {
            return Err(
                config.wrong("vision_feature_select_strategy", "the strategies there are: default, full")
            );
        }
    };
    let token_field =
        if config.get("image_token_id").is_some() { "image_token_id" } else { "image_token_index" };
    let token = config.get(token_field).map_or(Some(32_000), Value::as_u64);
    let token =
        token.and_then(|id| u32::try_from(id).ok()).filter(|id| *id < text.vocab_size).ok_or_else(|| {
            let vocab_size = text.vocab_size;
            config.wrong(
                token_field,
                format!("an id below {vocab_size} belongs there (where it is absent, 32000)"),
            )
        })?;
    let activation = config.activation("projector_hidden_act", "gelu")?;
    let biases = config.bool("multimodal_projector_bias", true)?;
    let tensors = tensors(&tower, patch_size, text.hidden_size, biases);
    Ok((Vision { tower, image_size, patch_size, layers_run, keeps_class, activation, token }, tensors))
}

/// The tower's architecture, the side of an image and the side of a patch, in pixels.
fn tower(config: &Config) -> Result<(Architecture, u32, u32)> {
    let hidden_size = config.size("hidden_size", 768)?;
    let n_heads = config.size("num_attention_heads", 12)?;
    let head_dim = config.head_dim("num_attention_heads", n_heads, hidden_size)?;
    let n_layers = config.layers(&["num_hidden_layers"], 12)?;
    let (image_size, patch_size) = (config.size("image_size", 224)?, config.size("patch_size", 32)?);
    if patch_size > image_size || image_size / patch_size > 128 {
        return Err(config
            .wrong("patch_size", format!("an image of {image_size} needs from 1 to 128 of them a side")));
    }
    let a_side = image_size / patch_size;
    let by = Norm::new(NormKind::Layer, config.epsilon("layer_norm_eps", 1e-5)?);
    let mlp = Mlp {
        norms: Norms::before(by),
        intermediate_size: config.size("intermediate_size", 3072)?,
        activation: config.activation("hidden_act", "quick_gelu")?,
        gated: false,
        experts: None,
    };
    let layer = Layer::new(Attention::full(head_dim, Norms::before(by)), mlp);
    let tower = Architecture {
        family: "clip_vision_model",
        vocab_size: 1,
        max_positions: 1 + a_side * a_side,
        hidden_size,
        n_heads,
        n_kv_heads: n_heads,
        head_dim,
        embedding: Embedding { norm: Some(by), ..Embedding::WITH_POSITIONS },
        layers: vec![layer; n_layers as usize],
        final_norm: None,
        logits: Logits::PLAIN,
        bos: Vec::new(),
        eos: Vec::new(),
        vision: None,
    };
    Ok((tower, image_size, patch_size))
}

fn tensors(tower: &Architecture, patch_size: u32, text_width: u32, biases: bool) -> VisionTensors {
    let (width, inner) = (tower.hidden_size, tower.intermediate_size());
    let embeddings = |name: &str| format!("{TOWER}embeddings.{name}");
    let layer = |number: usize| {
        let at = |name: &str| format!("{TOWER}encoder.layers.{number}.{name}");
        let weight =
            |name: &str, rows, columns| TensorSpec::matrix(at(&format!("{name}.weight")), rows, columns);
        let bias = |name: &str, len| TensorSpec::vector(at(&format!("{name}.bias")), len);
        let qkv = ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"];
        LayerTensors {
            attention: AttentionTensors {
                norms: Norms::before(norm(at("layer_norm1"), width, true)),
                qkv: qkv.map(|name| weight(name, width, width)).to_vec(),
                qkv_bias: qkv.map(|name| bias(name, width)).to_vec(),
                qk_norm: None,
                out: weight("self_attn.out_proj", width, width),
                out_bias: Some(bias("self_attn.out_proj", width)),
            },
            mlp: MlpTensors {
                norms: Norms::before(norm(at("layer_norm2"), width, true)),
                up: vec![weight("mlp.fc1", inner, width)],
                up_bias: vec![bias("mlp.fc1", inner)],
                down: weight("mlp.fc2", width, inner),
                down_bias: Some(bias("mlp.fc2", width)),
            },
        }
    };
    let steps = ["linear_1", "linear_2"].map(|name| format!("model.multi_modal_projector.{name}"));
    let [first, second] = steps.each_ref();
    VisionTensors {
        patches: TensorSpec {
            shape: vec![width, 3, patch_size, patch_size],
            ..TensorSpec::matrix(embeddings("patch_embedding.weight"), width, 3 * patch_size * patch_size)
        },
        class: TensorSpec::vector(embeddings("class_embedding"), width),
        positions: TensorSpec::matrix(embeddings("position_embedding.weight"), tower.max_positions, width),
        // This spelling is the one in every checkpoint.
        norm: norm(format!("{TOWER}pre_layrnorm"), width, true),
        layers: (0..tower.layers.len()).map(layer).collect(),
        project: [
            TensorSpec::matrix(format!("{first}.weight"), text_width, width),
            TensorSpec::matrix(format!("{second}.weight"), text_width, text_width),
        ],
        project_bias: biases
            .then(|| steps.map(|step| TensorSpec::vector(format!("{step}.bias"), text_width))),
    }
}
