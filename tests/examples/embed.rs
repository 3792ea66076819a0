//! A model on a wgpu device that the application itself opened, such as a game or an editor: `cargo run
//! --release --example embed`. The application keeps using its device and queue.

use wgpt::{
    LanguageModel, Request, backend::Device, engine::EngineOptions, model::Model, sampling::Sampling,
};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let backends = wgpu::Backends::VULKAN | wgpu::Backends::METAL | wgpu::Backends::DX12;
    let descriptor =
        wgpu::InstanceDescriptor { backends, ..wgpu::InstanceDescriptor::new_without_display_handle() };
    let instance = wgpu::Instance::new(descriptor);
    let Some(adapter) = pollster::block_on(instance.enumerate_adapters(backends)).into_iter().next() else {
        return Err("there is no GPU".into());
    };
    // The application's own device. Limits beyond WebGPU's defaults allow larger models; subgroups make all
    // models faster.
    let (device, queue) = pollster::block_on(adapter.request_device(&wgpu::DeviceDescriptor {
        required_features: adapter.features() & wgpu::Features::SUBGROUP,
        ..Default::default()
    }))?;

    let (model, tokenizer) = Model::built_in()?;
    let shared = Device::from_wgpu(&adapter, device.clone(), queue.clone())?;
    let mut model = LanguageModel::load(model, tokenizer, shared, EngineOptions::default())?;
    let request = Request { sampling: Sampling::GREEDY, max_tokens: 20, ..Request::default() };
    let text: String = model.generate("Once upon a time", &request)?.collect::<Result<_, _>>()?;
    println!("{text}");

    // The application can still use the device.
    let buffer = device.create_buffer(&wgpu::BufferDescriptor {
        label: Some("the application's"),
        size: 16,
        usage: wgpu::BufferUsages::COPY_DST,
        mapped_at_creation: false,
    });
    queue.write_buffer(&buffer, 0, &[1; 16]);
    queue.submit([]);
    Ok(())
}
