//! The model built into the binary: stories260K, a LLaMA with 260 thousand weights that tells simple stories
//! (karpathy/tinyllamas; see NOTICE beside this file).

pub const NAME: &str = "stories260K";
pub const CONFIG: &str = include_str!("config.json");
pub const TOKENIZER: &[u8] = include_bytes!("tokenizer.json");
pub const WEIGHTS: &[u8] = include_bytes!("model.safetensors");
