//! Which rows share a forward pass. Rows of neighbouring lengths do, so that little of the rectangle is padding.

use std::ops::Range;

use tch::{Device, Kind, Tensor};

use crate::error::ModelError;
use crate::transformer::TokenBatch;

/// Cuts rows that are sorted by length into batches of at most `budget` padded tokens (rows × longest row); a row longer than the
/// budget is a batch of its own. `lengths` must be in rising order.
pub(crate) fn cut(lengths: &[usize], budget: usize) -> Vec<Range<usize>> {
    let mut batches = Vec::new();
    let mut start = 0;
    for end in 1..=lengths.len() {
        let full = end == lengths.len() || lengths[end] * (end + 1 - start) > budget;
        if full {
            batches.push(start..end);
            start = end;
        }
    }
    batches
}

/// The rows as a rectangle, filled up on the right with `padding_id`.
pub(crate) fn pad(rows: &[&[u32]], padding_id: u32, device: Device) -> Result<TokenBatch, ModelError> {
    let width = rows.iter().map(|row| row.len()).max().unwrap_or(0);
    let mut ids = vec![i64::from(padding_id); rows.len() * width];
    for (row, places) in rows.iter().zip(ids.chunks_exact_mut(width.max(1))) {
        for (place, &id) in places.iter_mut().zip(*row) {
            *place = i64::from(id);
        }
    }
    let shape = [rows.len() as i64, width as i64];
    let ids = Tensor::f_from_slice(&ids)?.f_view(shape)?.f_to_device(device)?; // (b, t)
    let padding = if rows.iter().all(|row| row.len() == width) {
        None
    } else {
        let lengths: Vec<i64> = rows.iter().map(|row| row.len() as i64).collect();
        let lengths = Tensor::f_from_slice(&lengths)?.f_to_device(device)?.f_unsqueeze(1)?; // (b, 1)
        let places = Tensor::f_arange(width as i64, (Kind::Int64, device))?.f_unsqueeze(0)?; // (1, t)
        Some(places.f_ge_tensor(&lengths)?) // (b, t)
    };
    Ok(TokenBatch { ids, padding })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_cover_every_row_once_and_keep_to_the_budget() {
        let mut lengths: Vec<usize> = (0..500).map(|i| 1 + (i * 7919) % 97).collect();
        lengths.sort_unstable();
        for budget in [1, 50, 97, 1000, 1_000_000] {
            let batches = cut(&lengths, budget);
            let covered: Vec<usize> = batches.iter().cloned().flatten().collect();
            assert_eq!(covered, (0..500).collect::<Vec<_>>());
            for batch in batches {
                let cost = lengths[batch.end - 1] * batch.len();
                assert!(cost <= budget || batch.len() == 1, "{batch:?} costs {cost} of {budget}");
            }
        }
        assert!(cut(&[], 10).is_empty());
    }

    #[test]
    fn padding_is_marked_exactly_where_there_is_no_token() {
        let batch = pad(&[&[5, 6, 7], &[8]], 9, Device::Cpu).unwrap();
        assert_eq!(Vec::<Vec<i64>>::try_from(&batch.ids).unwrap(), [[5, 6, 7], [8, 9, 9]]);
        let padding = batch.padding.unwrap();
        assert_eq!(
            Vec::<Vec<bool>>::try_from(&padding).unwrap(),
            [[false, false, false], [false, true, true]]
        );
        assert!(pad(&[&[1, 2], &[3, 4]], 0, Device::Cpu).unwrap().padding.is_none());
    }
}
