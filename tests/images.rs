//! Vision models compared with transformers.

use crate::{
    models::engine,
    passes::{self, SIZES},
    support::{On, path, shared},
};
use safetensors::SafeTensors;
use serde_json::Value;
use std::path::Path;
use wgpt::{
    LanguageModel, Request,
    backend::Backend,
    capabilities::{Capabilities, Layout},
    chat::Message,
    engine::{EngineOptions, Placed, Prompt, plans, vision_plans},
    image::Image,
    model::Model,
    sampling::Sampling,
    step::{FEATURE, Row, Step},
    weights::Random,
    workload::Phase,
};

const NAMES: [&str; 2] = ["default", "full"];

pub fn models() -> impl Iterator<Item = Model> {
    NAMES.into_iter().map(|name| {
        let model = Model::open_weights(&path("fixtures/llava").join(name)).expect("a model");
        Model { name: format!("llava-{name}"), ..model }
    })
}

/// Compares image features, and the continuation of a prompt with two images.
fn check_fixtures(on: On) {
    for (name, model) in NAMES.into_iter().zip(models()) {
        let vision = model.architecture.vision.clone().expect("it sees");
        let Some(mut engine) = engine(&model, on, EngineOptions::default()) else { return };
        let file = path("fixtures/llava").join(name).join("expected.safetensors");
        let bytes = std::fs::read(file).expect("what is expected");
        let expected = SafeTensors::deserialize(&bytes).expect("safetensors");
        let data = |name| expected.tensor(name).expect(name).data();
        let values = |name| -> Vec<f32> { bytemuck::pod_collect_to_vec(data(name)) };
        let ids = |name| -> Vec<u32> { bytemuck::pod_collect_to_vec(data(name)) };
        let (tokens, features, pixels) = (ids("tokens"), values("features"), values("pixels"));
        let is_start = |i: &usize| tokens[*i] == vision.token && tokens[i - 1] != vision.token;
        let mut starts = (0..tokens.len()).filter(is_start);
        let mut images = Vec::new();
        for (pixels, expected) in pixels.chunks(pixels.len() / 2).zip(features.chunks(features.len() / 2)) {
            let seen = engine.encode_image(pixels).expect("an image");
            assert_eq!(seen.values().len(), vision.tokens() * model.architecture.hidden_size as usize);
            for (got, expected) in seen.values().iter().zip(expected) {
                assert!((got - expected).abs() < 1e-4, "{name} on {on:?}: {got} for {expected}");
            }
            images.push(Placed { at: starts.next().expect("its place"), features: seen });
        }
        let prompt = Prompt { tokens: &tokens, images: &images, adapters: None };
        let greedy = ids("greedy");
        let said = engine.generate(prompt, Sampling::GREEDY, greedy.len()).expect("a prompt that fits");
        let said: Vec<u32> = said.map(|id| id.expect("a token")).collect();
        // Our continuation may end earlier, at an end-of-text token.
        assert_eq!(said, greedy[..said.len()], "{name} on {on:?}");
        assert!(said.len() == greedy.len() || model.eos.contains(&said[said.len() - 1]));
    }
}

#[test]
fn on_the_cpu_images_are_seen_as_transformers_sees_them() {
    check_fixtures(On::Cpu);
}
#[test]
fn on_the_gpu_images_are_seen_as_transformers_sees_them() {
    check_fixtures(On::Gpu);
}
#[test]
fn with_checks_images_are_seen_as_transformers_sees_them() {
    check_fixtures(On::Checked);
}
#[test]
fn at_webgpus_default_limits_images_are_seen_as_transformers_sees_them() {
    check_fixtures(On::WebGpu);
}

/// Compares each pass of a vision tower, and of a prefill with image features in it, with its definition.
fn check_passes(on: On, change: impl Fn(&mut Capabilities)) {
    for model in models() {
        let vision = model.architecture.vision.clone().expect("it sees");
        let positions = vision.tower.max_positions;
        let device = || {
            let mut device = on.open()?;
            device.restrict(&change);
            Some(device)
        };
        let (Some(of_tower), Some(of_text)) = (device(), device()) else { return };
        let rows = |tokens: &dyn Fn(u32) -> u32| {
            (0..positions).map(|position| Row { token: tokens(position), position, sequence: 0 }).collect()
        };
        let step = Step { rows: rows(&|_| 0), tables: vec![vec![0]], ..Step::default() };
        let image = vec![(Phase::Prefill, Step { bidirectional: true, ..step.clone() })];
        let mut random = Random(3);
        let mut noise = |width: u32| -> Vec<f32> { (0..positions * width).map(|_| random.value()).collect() };
        let pixels = noise(vision.patch_values());
        let tower = |can: &Capabilities| vision_plans(&model, can).expect("a plan").expect("it sees");
        let at = tower(&of_tower.capabilities()).ports.pixels.expect("a vision encoder's");
        let begin = |backend: &mut dyn Backend| backend.write(at, &pixels).expect("it is written");
        let name = format!("{}'s tower", model.name);
        passes::check_plans(&name, on, of_tower, tower, &image, begin);

        let features = noise(model.architecture.hidden_size);
        let begin = |backend: &mut dyn Backend| {
            let at = backend.plans().ports.features.expect("it sees");
            backend.write(at, &features).expect("it is written");
        };
        let parts = Step { rows: rows(&|i| if i % 4 == 0 { i } else { FEATURE }), outputs: vec![2], ..step };
        let make = |can: &Capabilities| plans(&model, can, SIZES).expect("plans");
        passes::check_plans(&model.name, on, of_text, make, &[(Phase::Prefill, parts)], begin);
    }
}

#[test]
fn passes_over_images_equal_their_definitions() {
    check_passes(On::Cpu, |_| ());
    check_passes(On::Gpu, |_| ());
    check_passes(On::Checked, |_| ());
    check_passes(On::WebGpu, |can| (can.layout, can.max_groups) = (Layout::gpu(700), 3));
}

/// A trained model names the shape in a picture, as transformers does: in a single prompt and in a
/// conversation.
#[test]
fn a_trained_model_says_what_it_sees() {
    let Some(folder) = shared("models/shapes-llava") else { return };
    let text = std::fs::read(folder.join("expected.json")).expect("expected.json");
    let expected: Vec<Value> = serde_json::from_slice(&text).expect("JSON");
    let (model, tokenizer) = Model::open(&folder).expect("a model");
    let device = On::Cpu.open().expect("the CPU");
    let mut model =
        LanguageModel::load(model, tokenizer, device, EngineOptions::default()).expect("a model that fits");
    let request = Request { sampling: Sampling::GREEDY, ..Request::default() };
    let open =
        |case: &Value| Image::open(&folder.join(case["image"].as_str().expect("a path"))).expect("a picture");
    for case in &expected {
        let prompt = case["prompt"].as_str().expect("a prompt");
        let mut said =
            model.generate_with_images(&[open(case)], prompt, &request).expect("a prompt that fits");
        (&mut said).for_each(|piece| drop(piece.expect("a piece")));
        assert_eq!(said.text().trim(), case["answer"].as_str().expect("an answer"));
    }
    let mut conversation = model.chat(request).expect("a conversation");
    for case in &expected[..3] {
        conversation.said.clear();
        conversation.add_image(&open(case)).expect("it sees");
        let answer: String = conversation
            .say("What is in the picture?")
            .expect("room")
            .map(|piece| piece.expect("a piece"))
            .collect();
        assert_eq!(answer, case["answer"].as_str().expect("an answer"));
    }
    let [asked, said] = &conversation.said[..] else { panic!("a question and an answer") };
    assert!(asked.images.len() == 1 && *said == Message::new("assistant", said.content.clone()));
}

/// Refused: a prompt whose image places do not match its images, and images for a model that cannot see.
#[test]
fn images_without_a_place_are_refused() {
    let Some(folder) = shared("models/shapes-llava") else { return };
    let (model, tokenizer) = Model::open(&folder).expect("a model");
    let token = model.architecture.vision.as_ref().expect("it sees").token;
    let device = On::Cpu.open().expect("the CPU");
    let mut seeing =
        LanguageModel::load(model, tokenizer, device, EngineOptions::default()).expect("a model that fits");
    let image = Image::open(&folder.join("examples/00.png")).expect("a picture");
    let seen = seeing.encode_image(&image).expect("it sees");
    let both = [seen.clone(), seen];
    let places = |tokens: Vec<u32>, count: usize| {
        let placed = seeing.place(tokens, &both[..count]);
        placed.map(|(tokens, placed)| (tokens.len(), placed.iter().map(|image| image.at).collect::<Vec<_>>()))
    };
    assert_eq!(places(vec![1, 9, token, 9], 1).expect("its place"), (3 + 49, vec![2]));
    assert_eq!(places(vec![1, 9], 2).expect("at the beginning"), (2 + 98, vec![1, 50]));
    assert_eq!(places([vec![9], vec![token; 98]].concat(), 2).expect("as before"), (99, vec![1, 50]));
    assert_eq!(places(vec![1, 9], 0).expect("none"), (2, vec![]));
    for (tokens, count) in [(vec![token], 2), (vec![token, token], 1), (vec![1, token], 0)] {
        assert!(places(tokens, count).expect_err("no place").to_string().contains("places for them"));
    }
    let torn = [vec![token; 20], vec![9], vec![token; 29]].concat();
    assert!(places(torn, 1).expect_err("in two pieces").to_string().contains("follow each other"));
    let mut blind = LanguageModel::built_in().expect("the built-in model");
    let error = blind.encode_image(&image).expect_err("it sees none");
    assert!(error.to_string().contains("sees no images"), "{error}");
    assert!(Image::open(Path::new("Cargo.toml")).is_err());
}

/// A template that takes only text gets the image token. An image whose turn did not fit is not shown again
/// with the next one.
#[test]
fn images_are_shown_by_any_template() {
    let Some(folder) = shared("models/shapes-llava") else { return };
    let (mut model, tokenizer) = Model::open(&folder).expect("a model");
    let template =
        "{% for m in messages %}{{ m['role'] | upper }}: {{ m['content'] | trim }} {% endfor %}ASSISTANT:";
    model.chat_template = Some(template.to_owned());
    let device = On::Cpu.open().expect("the CPU");
    let options = EngineOptions { context: Some(90), ..EngineOptions::default() };
    let mut model = LanguageModel::load(model, tokenizer, device, options).expect("a model that fits");
    let request = Request { sampling: Sampling::GREEDY, ..Request::default() };
    let mut conversation = model.chat(request).expect("a conversation");
    let image = Image::open(&folder.join("examples/00.png")).expect("a picture");
    for count in [2, 1] {
        (0..count).for_each(|_| conversation.add_image(&image).expect("it sees"));
        let said = conversation.say("What is in the picture?");
        match count {
            2 => assert!(said.is_err_and(|e| e.to_string().contains("the context holds 90"))),
            _ => {
                let answer: String = said.expect("room").map(|piece| piece.expect("a piece")).collect();
                assert_eq!(answer, "a red square.");
            }
        }
    }
}
