// Random numbers, as src/sampling/chance.rs defines them.

// The upper 32 bits of the product a b.
fn high_product(a: u32, b: u32) -> u32 {
    let low = (a & 0xffffu) * (b & 0xffffu);
    let middle = (a >> 16u) * (b & 0xffffu) + (low >> 16u);
    let other = (a & 0xffffu) * (b >> 16u) + (middle & 0xffffu);
    return (a >> 16u) * (b >> 16u) + (middle >> 16u) + (other >> 16u);
}
// The first word of Philox4x32-10 (Salmon et al. 2011).
fn philox(first: vec4<u32>, seed: vec2<u32>) -> u32 {
    var counter = first;
    var k = seed;
    for (var i = 0u; i < 10u; i++) {
        let a = high_product(0xD2511F53u, counter.x);
        let b = high_product(0xCD9E8D57u, counter.z);
        counter =
            vec4(b ^ counter.y ^ k.x, 0xCD9E8D57u * counter.z, a ^ counter.w ^ k.y, 0xD2511F53u * counter.x);
        k += vec2(0x9E3779B9u, 0xBB67AE85u);
    }
    return counter.x;
}
// The natural logarithm of a positive normal number (Cephes, Moshier 1984). WGSL's own log has a large
// relative error near 1.
fn ln(v: f32) -> f32 {
    let bits = bitcast<u32>(v);
    // v = m 2^e, with m between sqrt(1/2) and sqrt(2); f = m - 1.
    let shifted = bits - 0x3f3504f3u;
    let e = f32(i32(shifted) >> 23u);
    let f = bitcast<f32>((shifted & 0x007fffffu) + 0x3f3504f3u) - 1.0;
    let z = f * f;
    var p = 7.0376836292e-2;
    p = p * f - 1.1514610310e-1;
    p = p * f + 1.1676998740e-1;
    p = p * f - 1.2420140846e-1;
    p = p * f + 1.4249322787e-1;
    p = p * f - 1.6668057665e-1;
    p = p * f + 2.0000714765e-1;
    p = p * f - 2.4999993993e-1;
    p = p * f + 3.3333331174e-1;
    return f + (f * z * p - 2.12194440e-4 * e - 0.5 * z) + 0.693359375 * e;
}
// A uniformly distributed number, greater than 0 and less than 1.
fn chance(counter: vec4<u32>, seed: vec2<u32>) -> f32 {
    return (f32(philox(counter, seed) >> 9u) + 0.5) / 8388608.0;
}
// A candidate's exponentially distributed waiting time. The candidate with the smallest waiting time / weight
// is drawn, which selects each with probability proportional to its weight.
fn wait(seed: vec2<u32>, position: u32, id: u32) -> f32 {
    return -ln(chance(vec4(id, position, 0u, 0u), seed));
}
// A uniformly distributed number, greater than 0 and less than 1, for a position as a whole.
fn coin(seed: vec2<u32>, position: u32) -> f32 { return chance(vec4(0u, position, 1u, 0u), seed); }
