//! Cross-entropy of classes, fused with its softmax.

use serde::Deserialize;
use smallvec::smallvec;

use super::index::Checked;
use super::normalization::for_rows_with;
use super::reduction::{chunk_total, logsumexp, mean, row_max, widen};
use super::{Context, Entry, Evaluation, Gradients, Keeps, Kept, Operation, Reach, Tensors, entry};
use crate::Number;
use crate::cpu;
use crate::memory::Block;
use crate::program::{Kind, Type, show};
use crate::tensor::{DType, Real, Tensor};

/// The lines of the table.
pub(super) const ENTRIES: &[Entry] = &[entry::<CrossEntropy>("cross_entropy", 2, Some(2))];

/// `(1 - s)·(-ln p[label]) + s·mean(-ln p)` with `p = softmax(logits)` and `s` the `label_smoothing` (default 0):
/// logits `(…, classes)`, int labels `(…)`, one loss for each label.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct CrossEntropy {
    #[serde(default)]
    label_smoothing: f64,
}

impl Operation for CrossEntropy {
    fn infer(&self, inputs: &[&Type]) -> Result<Type, String> {
        let (logits, labels) = (inputs[0], inputs[1]);
        logits.expect_kind(Kind::Float).map_err(|message| format!("the logits: {message}"))?;
        labels.expect_kind(Kind::Int).map_err(|message| format!("the labels: {message}"))?;
        logits.expect_rank(1, "the logits")?;
        let (classes, shape) = logits.shape.split_last().expect("at least one axis");
        if classes.count == 0 || classes.count > i32::MAX as usize {
            return Err(format!("expected 1 to 2^31 - 1 classes, got logits of shape {}", show(&logits.shape)));
        }
        if labels.shape != shape {
            return Err(format!(
                "the labels must have shape {} for logits of shape {}, got {}",
                show(shape),
                show(&logits.shape),
                show(&labels.shape)
            ));
        }
        if !(0.0..=1.0).contains(&self.label_smoothing) {
            return Err(format!("label_smoothing must be 0 to 1, got {}", self.label_smoothing));
        }
        Ok(Type::float(shape.to_vec()))
    }

    fn reach(&self, _: &[&Type]) -> Reach {
        Reach::Sample
    }

    fn evaluate(&self, mut inputs: Tensors, _: &Context) -> Evaluation {
        let (labels, logits) = (inputs.pop().expect("labels"), inputs.pop().expect("logits"));
        match logits.dtype() {
            DType::F32 if logits.is_cpu() => self.forward::<f32>(logits, labels),
            DType::F64 if logits.is_cpu() => self.forward::<f64>(logits, labels),
            _ => self.forward_tensors(logits, labels),
        }
    }

    // The saved probabilities take over the storage of the logits.
    fn keeps(&self) -> Keeps {
        Keeps::NOTHING
    }

    /// `g · (p - (1 - s)·onehot(label) - s / classes)`
    fn gradient(&self, mut kept: Kept, gradient: Tensor, _: &[bool]) -> Gradients {
        let labels = kept.saved.pop().expect("labels");
        let p = kept.saved.pop().expect("probabilities");
        let dlogits = match gradient.dtype() {
            DType::F32 if gradient.is_cpu() => self.backward::<f32>(p, &labels, gradient),
            DType::F64 if gradient.is_cpu() => self.backward::<f64>(p, &labels, gradient),
            _ => self.backward_tensors(p, labels, gradient),
        };
        smallvec![Some(dlogits), None]
    }
}

/// Rows that are computed together where they are narrow: the lanes of a vector.
const LANES: usize = 16;
/// Classes up to which a row is narrow.
const NARROW: usize = 32;

/// `a[i] = function(a[i], b[i])`
#[inline(always)]
fn each<A: Copy, B: Copy>(a: &mut [A; LANES], b: &[B; LANES], function: impl Fn(A, B) -> A) {
    // In one piece, so that no store comes between the loads.
    let mut values = *a;
    values.iter_mut().zip(b).for_each(|(value, &b)| *value = function(*value, b));
    *a = values;
}

impl CrossEntropy {
    fn forward<E: Real>(&self, logits: Tensor, labels: Tensor) -> Evaluation {
        let shape = labels.shape();
        let mut p = logits.unique::<E>();
        let classes = p.shape().last().copied().expect("at least one axis");
        let labels = Checked::new(labels, classes, true).indices.contiguous::<i32>();
        let indices = labels.elements::<i32>();
        let mut losses = Block::<E>::uninitialised(indices.len());
        let rows = p.elements_mut::<E>();
        for_rows_with(rows, classes, &mut losses, 1, |first, rows, losses| {
            cpu::vectorised!({
                let labels = &indices[first..][..losses.len()];
                if classes <= NARROW {
                    let blocks = rows.chunks_mut(LANES * classes).zip(labels.chunks(LANES));
                    for ((rows, labels), losses) in blocks.zip(losses.chunks_mut(LANES)) {
                        self.narrow_rows(rows, labels, losses);
                    }
                } else {
                    for ((row, loss), &label) in rows.chunks_exact_mut(classes).zip(losses).zip(labels) {
                        *loss = self.row(row, label as usize);
                    }
                }
            });
        });
        Evaluation { value: Tensor::from_block(losses, &shape), saved: smallvec![p, labels] }
    }

    /// The mean logit under the smoothed target, from that of the label and the sum over all classes.
    #[inline(always)]
    fn target(&self, label: f64, sum: f64, classes: usize) -> f64 {
        let smoothing = self.label_smoothing;
        // Without smoothing the other classes must not count, not even as 0 · ∞.
        if smoothing == 0.0 { label } else { (1.0 - smoothing) * label + smoothing * sum / classes as f64 }
    }

    /// The loss of a row of logits, which become probabilities.
    #[inline(always)]
    fn row<E: Real>(&self, row: &mut [E], label: usize) -> E {
        let greatest = row_max(row);
        row.iter_mut().for_each(|value| *value = *value - greatest);
        let target = self.target(row[label].to_f64(), chunk_total(row), row.len());
        row.iter_mut().for_each(|value| *value = value.exp());
        let total = chunk_total(row);
        let scale = E::from_f64(1.0 / total);
        row.iter_mut().for_each(|value| *value = *value * scale);
        E::from_f64(total.ln() - target)
    }

    /// [`Self::row`] of up to as many rows as a vector has lanes: rows of a few classes would not fill one. What a row gives
    /// does not depend on those beside it.
    #[inline(always)]
    fn narrow_rows<E: Real>(&self, rows: &mut [E], labels: &[i32], losses: &mut [E]) {
        let classes = rows.len() / losses.len();
        let mut columns = [[E::default(); LANES]; NARROW];
        let columns = &mut columns[..classes];
        for (lane, row) in rows.chunks_exact(classes).enumerate() {
            columns.iter_mut().zip(row).for_each(|(column, &value)| column[lane] = value);
        }
        let mut greatest = columns[0];
        for column in &columns[1..] {
            each(&mut greatest, column, |greatest, value| value.greater_of(greatest));
        }
        let (mut sums, mut totals) = ([0.0; LANES], [0.0; LANES]);
        for column in &mut *columns {
            each(column, &greatest, |value, greatest| value - greatest);
            if self.label_smoothing != 0.0 {
                each(&mut sums, column, |sum, value| sum + value.to_f64());
            }
        }
        let mut targets = [0.0; LANES];
        for (lane, (target, &label)) in targets.iter_mut().zip(labels).enumerate() {
            *target = columns[label as usize][lane].to_f64();
        }
        for column in &mut *columns {
            let mut powers = *column;
            powers.iter_mut().for_each(|value| *value = value.exp());
            *column = powers;
            each(&mut totals, column, |total, value| total + value.to_f64());
        }
        let (mut logarithms, mut scales) = ([E::default(); LANES], [E::default(); LANES]);
        // The greatest adds 1, without which small losses keep their digits.
        each(&mut logarithms, &totals, |_, total| E::from_f64(total - 1.0));
        each(&mut scales, &totals, |_, total| E::from_f64(1.0 / total));
        logarithms.iter_mut().for_each(|others| *others = others.log1p());
        for (lane, loss) in losses.iter_mut().enumerate() {
            let target = self.target(targets[lane], sums[lane], classes);
            *loss = E::from_f64(logarithms[lane].to_f64() - target);
        }
        for (lane, row) in rows.chunks_exact_mut(classes).enumerate() {
            row.iter_mut().zip(&*columns).for_each(|(to, column)| *to = column[lane] * scales[lane]);
        }
    }

    fn backward<E: Real>(&self, p: Tensor, labels: &Tensor, gradient: Tensor) -> Tensor {
        let mut p = p.unique::<E>();
        let classes = p.shape().last().copied().expect("at least one axis");
        let gradient = gradient.contiguous::<E>();
        let g = gradient.elements::<E>();
        let labels = labels.elements::<i32>();
        let share = E::from_f64(self.label_smoothing / classes as f64);
        let rest = E::from_f64(1.0 - self.label_smoothing);
        cpu::for_rows(p.elements_mut::<E>(), classes, |first, rows| {
            cpu::vectorised!({
                let rows = rows.chunks_exact_mut(classes).zip(&g[first..]);
                for ((row, &g), &label) in rows.zip(&labels[first..]) {
                    row[label as usize] = row[label as usize] - rest;
                    row.iter_mut().for_each(|value| *value = (*value - share) * g);
                }
            });
        });
        p
    }

    fn forward_tensors(&self, logits: Tensor, labels: Tensor) -> Evaluation {
        let (dtype, shape, axis) = (logits.dtype(), labels.shape(), labels.rank());
        let mut beside = shape.clone();
        beside.push(1);
        let classes = logits.shape()[axis];
        let labels = Checked::new(labels, classes, true);
        let logits = widen(logits);
        let logarithms = logits.clone() - logsumexp(logits, axis);
        let picked = logarithms.clone().gather(axis, labels.indices.clone().reshape(&beside));
        let smoothing = self.label_smoothing;
        let loss = if smoothing == 0.0 {
            -picked
        } else {
            picked.times(smoothing - 1.0) - mean(logarithms.clone(), &[axis]).times(smoothing)
        };
        let loss = labels.mark(loss.reshape(&shape), &shape);
        Evaluation { value: loss.cast(dtype), saved: smallvec![logarithms.exp(), labels.indices] }
    }

    fn backward_tensors(&self, p: Tensor, labels: Tensor, gradient: Tensor) -> Tensor {
        let (dtype, mut beside) = (gradient.dtype(), gradient.shape());
        beside.push(1);
        let axis = beside.len() - 1;
        let classes = p.shape()[axis];
        let hot = Tensor::full(&beside, self.label_smoothing - 1.0, p.dtype(), &p.device());
        let less = p.scatter_add(axis, labels.reshape(&beside), hot);
        let slope = less.plus(-self.label_smoothing / classes as f64);
        (slope * widen(gradient).reshape(&beside)).cast(dtype)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{assert_close, on_threads, tensor};

    /// Many rows of few and of many classes, whole blocks or not, in pieces for several threads.
    #[test]
    fn many_rows_agree_with_tensors_on_any_threads() {
        for (rows, classes) in [(1, 3), (40, 1), (5003, 10), (3001, NARROW), (1501, NARROW + 1)] {
            let logits = tensor::<f64>(3, &[rows, classes]).times(20.0);
            let labels: Vec<i32> = (0..rows).map(|row| (row * 7 % classes) as i32).collect();
            let labels = Tensor::from_vec(labels, &[rows]);
            for label_smoothing in [0.0, 0.2] {
                let loss = CrossEntropy { label_smoothing };
                let expected = loss.forward_tensors(logits.clone(), labels.clone());
                let found = loss.forward::<f64>(logits.clone(), labels.clone());
                assert_close(&found.value.to_f64(), &expected.value.to_f64(), 1e-12);
                assert_close(&found.saved[0].to_f64(), &expected.saved[0].to_f64(), 1e-12);
                let single = logits.clone().cast(DType::F32);
                let expected = loss.forward_tensors(single.clone().cast(DType::F64), labels.clone());
                let [one, two, three] =
                    on_threads(|| loss.forward::<f32>(single.clone(), labels.clone()).value.into_vec::<f32>());
                assert!(one == two && one == three);
                let wide: Vec<f64> = one.into_iter().map(f64::from).collect();
                assert_close(&wide, &expected.value.to_f64(), 5e-6);
            }
        }
    }

    #[test]
    fn fused_rows_agree_with_tensors() {
        let values: Vec<f64> = (0..12).map(|index| f64::from(index * 7 % 11) * 40.0 - 200.0).collect();
        let logits = Tensor::from_vec(values, &[2, 2, 3]);
        let labels = Tensor::from_vec(vec![0, 2, 1, 1], &[2, 2]);
        let g = Tensor::from_vec(vec![1.0, -2.0, 0.5, 3.0], &[2, 2]);
        let close = |a: &Tensor, b: &Tensor| {
            a.to_f64().iter().zip(b.to_f64()).all(|(a, b)| (a - b).abs() < 1e-12 * (1.0 + b.abs()))
        };
        for label_smoothing in [0.0, 0.1] {
            let loss = CrossEntropy { label_smoothing };
            let fused = loss.forward::<f64>(logits.clone(), labels.clone());
            let whole = loss.forward_tensors(logits.clone(), labels.clone());
            assert!(close(&fused.value, &whole.value) && fused.value.shape() == [2, 2]);
            let fused = loss.backward::<f64>(fused.saved[0].clone(), &labels, g.clone());
            let whole = loss.backward_tensors(whole.saved[0].clone(), labels.clone(), g.clone());
            assert!(close(&fused, &whole));
        }
    }
}
