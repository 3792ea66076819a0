// Implements interface `kv_write` for pairs of f16: each is written with its first number. The program binds
// `cache`, an array of KvWord.
#import kv
alias KvWord = u32;
fn pair(number: f32, next: f32) -> u32 {
    return pack2x16float(clamp(vec2(number, next), vec2(-65504.0), vec2(65504.0)));
}
fn write_key(slot: u32, i: u32, number: f32, next: f32) {
    if i % 2u == 0u { cache[key_of(slot, i) / 2u] = pair(number, next); }
}
fn write_value(slot: u32, i: u32, number: f32, next: f32) {
    if i % 2u == 0u { cache[value_of(slot, i) / 2u] = pair(number, next); }
}
