//! What becomes of a batch that failed: it is halved until every row has its scores or has failed alone.
//!
//! Two kinds of trouble look alike at first. A row can be too much (a long text on a full accelerator): the others must have
//! their scores, and this one is told apart. Or the model cannot work at all (the device is gone, its memory is taken by
//! somebody else): then no row is to blame, and whoever asked must stop. A row that fails alone is therefore held against a
//! probe, a shorter row of the same tokens: where that fails too, it is not the row.
//!
//! Never does a row go to another device than the one that was asked for, unless the caller hands in a spare.

use std::cell::OnceCell;

use tch::Device;

use crate::checkpoint::Checkpoint;
use crate::error::ModelError;
use crate::network::Network;

/// Logits per head, row-major, of one batch.
pub(crate) type Logits = Result<Vec<Vec<f32>>, ModelError>;

/// A way to compute a batch.
pub(crate) type Way<'a> = &'a dyn Fn(&[&[u32]]) -> Logits;

/// When memory ran out on one row, so many of its tokens must still fit: a device without room for them has none for any post.
const PROBE_TOKENS: usize = 16;

/// What kind of trouble an error is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Memory ran out: fewer rows need less.
    Memory,
    /// The device, or the way to it, is broken: nothing will work any more.
    Device,
    /// Anything else; may come of a row.
    Other,
}

/// How libtorch, CUDA and its libraries say that memory ran out.
const MEMORY: [&str; 9] = [
    "out of memory",
    "out_of_memory",
    "not enough memory",
    "can't allocate memory",
    "bad_alloc",
    "status_alloc_failed",
    "memoryallocation",
    "could not create a memory",
    "failed to allocate",
];

/// How they say that the device is of no use any more. An error of a CUDA context stays: every later call fails with it.
const DEVICE: [&str; 10] = [
    "cuda error",
    "cuda driver error",
    "cuda runtime",
    "cublas_status",
    "cudnn_status",
    "cusolver_status",
    "device-side assert",
    "illegal memory access",
    "no kernel image",
    "uncorrectable",
];

impl Fault {
    /// libtorch gives every error the same type, so the words must tell.
    pub(crate) fn of(error: &ModelError) -> Fault {
        let said = error.to_string().to_ascii_lowercase();
        let any = |words: &[&str]| words.iter().any(|word| said.contains(word));
        if any(&MEMORY) {
            Fault::Memory
        } else if any(&DEVICE) {
            Fault::Device
        } else {
            Fault::Other
        }
    }
}

/// The ways to compute a batch.
pub(crate) struct Ways<'a> {
    /// The model, on its device.
    pub(crate) model: Way<'a>,
    /// The model elsewhere, for a row that its device cannot do; only where the user allows it.
    pub(crate) spare: Option<Way<'a>>,
}

/// What could be saved of a batch.
#[derive(Debug, Default)]
pub(crate) struct Rescued {
    /// Pieces of the batch, by the places of their rows, with their logits.
    pub(crate) pieces: Vec<(std::ops::Range<usize>, Vec<Vec<f32>>)>,
    /// Rows that failed alone, and why.
    pub(crate) failed: Vec<(usize, String)>,
    /// Rows that only the spare could do.
    pub(crate) spared: usize,
}

/// Computes a batch that has failed as a whole, in pieces.
///
/// # Errors
/// When no row is to blame: the error that says what is.
pub(crate) fn rescue(ways: &Ways, rows: &[&[u32]], error: ModelError) -> Result<Rescued, ModelError> {
    if Fault::of(&error) == Fault::Device {
        return Err(error);
    }
    let mut rescued = Rescued::default();
    // The first half on top, so that pieces come in order.
    let whole = 0..rows.len();
    let mut waiting = if whole.len() > 1 {
        halves(whole)
    } else {
        Vec::from([whole])
    };
    while let Some(piece) = waiting.pop() {
        match (ways.model)(&rows[piece.clone()]) {
            Ok(logits) => rescued.pieces.push((piece, logits)),
            Err(error) if Fault::of(&error) == Fault::Device => return Err(error),
            Err(_) if piece.len() > 1 => waiting.extend(halves(piece)),
            Err(error) => alone(ways, rows[piece.start], (piece.start, error), &mut rescued)?,
        }
    }
    Ok(rescued)
}

fn halves(piece: std::ops::Range<usize>) -> Vec<std::ops::Range<usize>> {
    let middle = piece.start + piece.len() / 2;
    vec![middle..piece.end, piece.start..middle]
}

/// A row that failed alone: the spare may do it, or it is the row's fault, or nobody's.
fn alone(
    ways: &Ways,
    row: &[u32],
    (place, error): (usize, ModelError),
    rescued: &mut Rescued,
) -> Result<(), ModelError> {
    if let Some(Ok(logits)) = ways.spare.map(|spare| spare(&[row])) {
        rescued.pieces.push((place..place + 1, logits));
        rescued.spared += 1;
        return Ok(());
    }
    let probe = match Fault::of(&error) {
        Fault::Memory => PROBE_TOKENS,
        _ => 1,
    };
    (ways.model)(&[&row[..probe.min(row.len())]])?;
    rescued.failed.push((place, error.to_string()));
    Ok(())
}

/// The model on the processor, for rows that the accelerator cannot do; loaded when the first one comes.
pub(crate) struct Spare {
    checkpoint: Checkpoint,
    network: OnceCell<Network>,
}

impl Spare {
    pub(crate) fn new(checkpoint: Checkpoint) -> Self {
        Spare {
            checkpoint,
            network: OnceCell::new(),
        }
    }

    pub(crate) fn logits(&self, rows: &[&[u32]]) -> Logits {
        if let Some(network) = self.network.get() {
            return network.logits(rows);
        }
        let network = self.checkpoint.load(Device::Cpu)?;
        tracing::warn!(
            "a row was too much for the accelerator: it and its like are scored on the processor, as `cpu_fallback` allows"
        );
        self.network.get_or_init(|| network).logits(rows)
    }
}

#[cfg(test)]
mod tests {
    use std::cell::{Cell, RefCell};

    use super::*;

    fn torch(reason: &str) -> ModelError {
        ModelError::Torch {
            doing: "scoring a batch",
            reason: reason.to_owned(),
        }
    }

    fn memory() -> ModelError {
        torch("CUDA out of memory. Tried to allocate 2.00 GiB.")
    }

    /// One head, one label: the first token of each row.
    fn firsts(rows: &[&[u32]]) -> Vec<Vec<f32>> {
        vec![rows.iter().map(|row| row[0] as f32).collect()]
    }

    fn rows(lengths: &[usize]) -> Vec<Vec<u32>> {
        lengths
            .iter()
            .enumerate()
            .map(|(at, length)| vec![at as u32; *length])
            .collect()
    }

    /// Every row is in exactly one piece or failed, in order, with its own logits.
    fn check(rescued: &Rescued, count: usize, failed: &[usize]) {
        let mut seen: Vec<usize> = rescued.failed.iter().map(|(place, _)| *place).collect();
        assert_eq!(seen, failed);
        for (piece, logits) in &rescued.pieces {
            let expected: Vec<f32> = piece.clone().map(|place| place as f32).collect();
            assert_eq!(logits, &[expected]);
            seen.extend(piece.clone());
        }
        seen.sort_unstable();
        assert_eq!(seen, (0..count).collect::<Vec<_>>());
    }

    #[test]
    fn a_batch_that_is_too_large_is_halved_until_it_fits() {
        let rows = rows(&[10; 100]);
        let rows: Vec<&[u32]> = rows.iter().map(Vec::as_slice).collect();
        let largest = Cell::new(0);
        let model = |rows: &[&[u32]]| match rows.len() * 10 {
            tokens if tokens > 150 => Err(memory()),
            tokens => {
                largest.set(largest.get().max(tokens));
                Ok(firsts(rows))
            }
        };
        let ways = Ways {
            model: &model,
            spare: None,
        };
        let rescued = rescue(&ways, &rows, memory()).unwrap();
        check(&rescued, 100, &[]);
        assert!(largest.get() > 75, "halved once too often: {}", largest.get());
    }

    #[test]
    fn rows_that_fail_alone_are_told_and_the_others_have_their_scores() {
        let rows = rows(&[5, 9, 40, 3, 41, 8, 7]);
        let rows: Vec<&[u32]> = rows.iter().map(Vec::as_slice).collect();
        let model = |rows: &[&[u32]]| {
            let longest = rows.iter().map(|row| row.len()).max().unwrap();
            if longest > 30 { Err(memory()) } else { Ok(firsts(rows)) }
        };
        let ways = Ways {
            model: &model,
            spare: None,
        };
        let rescued = rescue(&ways, &rows, memory()).unwrap();
        check(&rescued, 7, &[2, 4]);
        assert!(rescued.failed[0].1.contains("out of memory"));
        // A single row that failed is tried once more: what took the memory may be gone.
        let rescued = rescue(&ways, &rows[..1], memory()).unwrap();
        check(&rescued, 1, &[]);
    }

    #[test]
    fn a_row_goes_to_the_spare_only_where_there_is_one() {
        let rows = rows(&[5, 40]);
        let rows: Vec<&[u32]> = rows.iter().map(Vec::as_slice).collect();
        let model = |rows: &[&[u32]]| {
            if rows[0].len() > 30 {
                Err(memory())
            } else {
                Ok(firsts(rows))
            }
        };
        let asked = RefCell::new(Vec::new());
        let spare = |rows: &[&[u32]]| {
            asked.borrow_mut().push(rows.len());
            Ok(firsts(rows))
        };
        let ways = Ways {
            model: &model,
            spare: Some(&spare),
        };
        let rescued = rescue(&ways, &rows, memory()).unwrap();
        check(&rescued, 2, &[]);
        assert_eq!((rescued.spared, asked.into_inner()), (1, vec![1]));
    }

    #[test]
    fn a_device_that_is_gone_blames_no_row() {
        let rows = rows(&[5, 6]);
        let rows: Vec<&[u32]> = rows.iter().map(Vec::as_slice).collect();
        let calls = Cell::new(0);
        let gone = || torch("CUDA error: device-side assert triggered");
        let model = |_: &[&[u32]]| {
            calls.set(calls.get() + 1);
            Err(gone())
        };
        let ways = Ways {
            model: &model,
            spare: None,
        };
        assert!(rescue(&ways, &rows, gone()).is_err());
        assert_eq!(calls.get(), 0, "it is not asked again");
        // It may also show only when a piece is tried.
        assert!(rescue(&ways, &rows, memory()).is_err());
        assert_eq!(calls.get(), 1);
    }

    #[test]
    fn where_even_the_probe_fails_no_row_is_to_blame() {
        let rows = rows(&[40, 41, 42]);
        let rows: Vec<&[u32]> = rows.iter().map(Vec::as_slice).collect();
        for error in [|| memory(), || torch("expected scalar type Float but found Half")] {
            let model = |_: &[&[u32]]| Err(error());
            let ways = Ways {
                model: &model,
                spare: None,
            };
            let told = rescue(&ways, &rows, error()).unwrap_err().to_string();
            assert_eq!(told, error().to_string());
        }
    }

    #[test]
    fn faults_are_known_by_their_words() {
        for (said, fault) in [
            (
                "CUDA out of memory. Tried to allocate 20.00 MiB. GPU 0 has a total capacity of 139 GiB",
                Fault::Memory,
            ),
            ("CUDA error: out of memory", Fault::Memory),
            (
                "[enforce fail at alloc_cpu.cpp:124] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 bytes",
                Fault::Memory,
            ),
            (
                "[enforce fail at alloc_cpu.cpp:118] DefaultCPUAllocator: not enough memory: you tried to allocate 9 bytes.",
                Fault::Memory,
            ),
            ("std::bad_alloc", Fault::Memory),
            (
                "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
                Fault::Memory,
            ),
            (
                "CUDA error: CUBLAS_STATUS_EXECUTION_FAILED when calling `cublasSgemm`",
                Fault::Device,
            ),
            ("CUDA error: an illegal memory access was encountered", Fault::Device),
            ("CUDA error: uncorrectable ECC error encountered", Fault::Device),
            ("CUDA driver error: unknown error", Fault::Device),
            ("index out of range in self", Fault::Other),
            ("mat1 and mat2 shapes cannot be multiplied (1x2 and 3x4)", Fault::Other),
        ] {
            assert_eq!(Fault::of(&torch(said)), fault, "{said}");
        }
    }
}
