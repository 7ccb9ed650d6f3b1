//! Cutting a list of files into partitions. Pure: it knows sizes and legal places, no formats' contents.

use crate::request::Slice;
use crate::spec::{CutBy, DEFAULT_MAX_PARTITIONS, DEFAULT_TARGET, Partitions};

/// How many partitions are wanted of `files` files of `total` bytes.
pub fn wanted(spec: &Partitions, total: u64, files: usize) -> usize {
    let max = spec.max.unwrap_or(DEFAULT_MAX_PARTITIONS);
    let n = match (spec.n, spec.target, spec.by) {
        (Some(n), _, _) => n,
        (None, None, CutBy::File) => files,
        (None, target, _) => {
            let target = target.map_or(DEFAULT_TARGET, |t| t.0);
            usize::try_from(total.div_ceil(target)).unwrap_or(usize::MAX)
        }
    };
    n.clamp(1, max)
}

/// Whether every file is a partition of its own, whatever the sizes.
pub fn one_per_file(spec: &Partitions, files: usize) -> bool {
    spec.by == CutBy::File
        && spec.n.is_none()
        && spec.target.is_none()
        && files <= spec.max.unwrap_or(DEFAULT_MAX_PARTITIONS)
}

/// The places at which `n` partitions of equal size would begin, as sorted offsets in each file; the first is left out.
pub fn desired(sizes: &[u64], n: usize) -> Vec<Vec<u64>> {
    let total: u128 = sizes.iter().map(|&s| u128::from(s)).sum();
    let mut offsets = vec![Vec::new(); sizes.len()];
    let mut file = 0;
    let mut before: u128 = 0;
    for k in 1..n as u128 {
        let at = total * k / n as u128;
        while file < sizes.len() && at >= before + u128::from(sizes[file]) {
            before += u128::from(sizes[file]);
            file += 1;
        }
        if file < sizes.len() {
            offsets[file].push((at - before) as u64);
        }
    }
    offsets
}

/// Moves each offset to the nearer end of a file of `size` bytes.
pub fn snap_to_ends(offsets: &[u64], size: u64) -> Vec<u64> {
    offsets
        .iter()
        .map(|&at| if at < size - size / 2 { 0 } else { size })
        .collect()
}

/// Moves each offset to the nearest of `places` (sorted) or the file's ends.
pub fn snap_to(offsets: &[u64], places: &[u64], size: u64) -> Vec<u64> {
    offsets
        .iter()
        .map(|&at| {
            let next = places.partition_point(|&place| place < at);
            let above = places.get(next).copied().unwrap_or(size);
            let below = if next == 0 { 0 } else { places[next - 1] };
            if at - below < above - at {
                below
            } else {
                above
            }
        })
        .collect()
}

/// Cuts `files` at `cuts` (offsets per file, in any order, each legal). No partition is empty; together they hold every
/// byte once.
pub fn cut(files: &[Slice], cuts: &[Vec<u64>]) -> Vec<Vec<Slice>> {
    let mut partitions: Vec<Vec<Slice>> = Vec::new();
    let mut open = false;
    for (file, cuts) in files.iter().zip(cuts) {
        let mut edges: Vec<u64> = cuts.iter().map(|&at| at.min(file.size)).collect();
        edges.sort_unstable();
        edges.dedup();
        let mut start = 0;
        for edge in edges.into_iter().chain([file.size]) {
            if edge == 0 {
                open = false;
                continue;
            }
            if edge > start {
                let slice = Slice {
                    start,
                    end: edge,
                    ..file.clone()
                };
                match partitions.last_mut().filter(|_| open) {
                    Some(partition) => partition.push(slice),
                    None => partitions.push(vec![slice]),
                }
            }
            // The file's end is an edge of the file, but of a partition only if it was asked for.
            open = edge == file.size && !cuts.contains(&file.size);
            start = edge;
        }
    }
    partitions
}
