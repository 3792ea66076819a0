// interface `reach`: which positions a row sees.
struct Reach { start: u32, end: u32 }
fn reach(position: u32, window: u32) -> Reach {
    let end = position + 1u;
    return Reach(select(0u, end - min(end, window), window > 0u), end);
}
