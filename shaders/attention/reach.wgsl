// interface `reach`: which positions a row sees, and which splits of the context they lie in.
struct Reach { start: u32, end: u32, first_split: u32, last_split: u32 }
fn reach(position: u32, window: u32) -> Reach {
    let end = position + 1u;
    let start = select(0u, end - min(end, window), window > 0u);
    return Reach(start, end, start / SPLIT, position / SPLIT);
}
