//! Connectionist temporal classification: labels of a sequence of which nobody knows where they stand.

use serde::Deserialize;
use smallvec::smallvec;

use super::binary::multiply;
use super::normalization::for_rows_with;
use super::reduction::{chunk_total, row_max};
use super::{Context, Entry, Evaluation, Gradients, Keeps, Kept, Operation, Reach, Tensors, entry};
use crate::Error;
use crate::cpu;
use crate::memory::Block;
use crate::program::{Kind, Type, show};
use crate::tensor::{DType, Real, Tensor};

/// The lines of the table.
pub(super) const ENTRIES: &[Entry] = &[entry::<Ctc>("ctc", 2, Some(3))];

/// `-ln P(labels)`, the sum over all alignments of the labels with the steps, where a step may also be `blank` and a label
/// may stay for several steps (Graves et al., 2006): logits `(batch, steps, classes)`, int labels `(batch, places)`, int
/// lengths `(batch,)` of the logits (default: all steps), one loss for each sample.
///
/// What is negative or `blank` (default 0) among the labels is padding. Labels that need more steps than there are cost
/// infinity, and a gradient that is NaN; nothing of either where `zero_infinity` is set.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Ctc {
    #[serde(default)]
    blank: usize,
    #[serde(default)]
    zero_infinity: bool,
}

impl Operation for Ctc {
    fn infer(&self, inputs: &[&Type]) -> Result<Type, String> {
        let (logits, labels) = (inputs[0], inputs[1]);
        logits.expect_kind(Kind::Float).map_err(|message| format!("the logits: {message}"))?;
        labels.expect_kind(Kind::Int).map_err(|message| format!("the labels: {message}"))?;
        let known =
            logits.rank() == 3 && logits.shape[1..].iter().all(|dim| !dim.batch && dim.count <= i32::MAX as usize);
        if !known || logits.shape[2].count == 0 {
            return Err(format!("the logits must have shape (batch, steps, classes), got {}", show(&logits.shape)));
        }
        let (batch, classes) = (logits.shape[0], logits.shape[2].count);
        if labels.rank() != 2 || labels.shape[0] != batch || labels.shape[1].batch {
            return Err(format!("the labels must have shape ({batch}, places), got {}", show(&labels.shape)));
        }
        if let Some(lengths) = inputs.get(2) {
            lengths.expect_kind(Kind::Int).map_err(|message| format!("the lengths: {message}"))?;
            if lengths.shape != [batch] {
                return Err(format!("the lengths must have shape ({batch},), got {}", show(&lengths.shape)));
            }
        }
        if self.blank >= classes {
            return Err(format!("blank must be one of {classes} classes, got {}", self.blank));
        }
        Ok(Type::float(vec![batch]))
    }

    fn reach(&self, _: &[&Type]) -> Reach {
        Reach::Sample
    }

    /// On the host, whatever the device: each step waits for the one before it.
    fn evaluate(&self, inputs: Tensors, _: &Context) -> Evaluation {
        let mut inputs = inputs.into_iter();
        let logits = inputs.next().expect("logits");
        let (device, dtype) = (logits.device(), logits.dtype());
        let [labels, lengths] = [inputs.next(), inputs.next()].map(|whole| whole.map(integers));
        let (labels, lengths) = (labels.expect("labels"), lengths.as_deref());
        let logits = logits.into_cpu();
        let [losses, slopes] = match dtype {
            DType::F64 => self.forward::<f64>(logits, &labels, lengths),
            _ => self.forward::<f32>(logits.cast(DType::F32), &labels, lengths),
        }
        .map(|found| found.cast(dtype))
        .map(|found| if device.is_cpu() { found } else { Tensor::from_data(found.into_data(), &device) });
        Evaluation { value: losses, saved: smallvec![slopes] }
    }

    // The saved slopes take over the storage of the logits.
    fn keeps(&self) -> Keeps {
        Keeps::NOTHING
    }

    fn gradient(&self, mut kept: Kept, gradient: Tensor, wanted: &[bool]) -> Gradients {
        let beside = [gradient.len(), 1, 1];
        let mut gradients = smallvec![None; wanted.len()];
        gradients[0] = Some(multiply(kept.saved.remove(0), gradient.reshape(&beside)));
        gradients
    }
}

fn integers(tensor: Tensor) -> Vec<i32> {
    tensor.into_cpu().cast(DType::I32).into_vec::<i32>()
}

/// The logarithm of 0: finite, so that differences of two are no NaN, and so low that what is added to it is lost.
const FLOOR: f64 = -1e30;
/// Below it a logarithm is that of 0.
const NOTHING: f64 = FLOOR / 10.0;

impl Ctc {
    /// The losses, and their slopes in the place of the logits.
    fn forward<E: Real>(&self, logits: Tensor, labels: &[i32], lengths: Option<&[i32]>) -> [Tensor; 2] {
        let shape = logits.shape();
        let (batch, steps, classes) = (shape[0], shape[1], shape[2]);
        let (places, sample) = (labels.len() / batch.max(1), steps * classes);
        let mut slopes = logits.unique::<E>();
        let mut losses = Block::<E>::uninitialised(batch);
        for_rows_with(slopes.elements_mut::<E>(), sample, &mut losses, 1, |first, slopes, losses| {
            let mut lattice = Lattice::<E>::default();
            for (index, loss) in losses.iter_mut().enumerate() {
                let row = first + index;
                let length = lengths.map_or(steps, |lengths| checked(lengths[row], steps, "length"));
                lattice.lay(&labels[row * places..][..places], self.blank, classes, length);
                *loss = E::from_f64(self.sample(&mut lattice, &mut slopes[index * sample..][..sample], classes));
            }
        });
        [Tensor::from_block(losses, &[batch]), slopes]
    }

    /// The loss of a sample, whose logits become its slopes.
    fn sample<E: Real>(&self, lattice: &mut Lattice<E>, rows: &mut [E], classes: usize) -> f64 {
        let (used, padding) = rows.split_at_mut(lattice.steps * classes);
        padding.fill(E::default());
        cpu::vectorised!(lattice.read(used, classes));
        let loss = cpu::vectorised!(lattice.forward());
        if loss == f64::INFINITY {
            used.fill(E::from_f64(if self.zero_infinity { 0.0 } else { f64::NAN }));
            return if self.zero_infinity { 0.0 } else { loss };
        }
        cpu::vectorised!(lattice.backward(used, classes));
        loss
    }
}

/// An integer of the data in `0..=greatest`.
fn checked(value: i32, greatest: usize, what: &str) -> usize {
    let number = usize::try_from(value).ok().filter(|&number| number <= greatest);
    number.unwrap_or_else(|| Error::value(format!("{what} {value} is outside 0 to {greatest}")).raise())
}

/// States come in whole vectors, the last ones of no class and of no weight: a rest costs as much as several vectors.
const LANES: usize = 16;

/// States (the labels of one sample with a blank before, between and after them) by steps, in logarithms.
#[derive(Default)]
struct Lattice<E> {
    /// The class of each state.
    classes: Vec<usize>,
    /// 0 where a state may follow the one two before it, the logarithm of 0 elsewhere and in two places after all states.
    skips: Vec<E>,
    steps: usize,
    /// `ln p` of each state's class in each step.
    outputs: Vec<E>,
    /// `ln P` of all ways to a state, up to a constant of the row; rows have two places before the states, the first row is
    /// before the first step.
    alphas: Vec<E>,
}

impl<E: Real> Lattice<E> {
    fn lay(&mut self, labels: &[i32], blank: usize, classes: usize, steps: usize) {
        self.steps = steps;
        self.classes.clear();
        self.classes.push(blank);
        for &label in labels.iter().filter(|&&label| label >= 0 && label as usize != blank) {
            self.classes.extend([checked(label, classes - 1, "label"), blank]);
        }
        let (states, width, floor) = (self.classes.len(), self.width(), E::from_f64(FLOOR));
        let skips =
            (0..states).map(|state| state == 1 || state % 2 == 1 && self.classes[state] != self.classes[state - 2]);
        self.skips.clear();
        self.skips.extend(skips.map(|free| if free { E::default() } else { floor }));
        self.skips.resize(width + 2, floor);
        self.outputs.clear();
        self.outputs.resize(steps * width, floor);
        self.alphas.clear();
        self.alphas.resize((steps + 1) * (width + 2), floor);
        // One before the states: from here to the first blank, and by a skip to the first label.
        self.alphas[1] = E::default();
    }

    fn width(&self) -> usize {
        self.classes.len().next_multiple_of(LANES)
    }

    /// Takes the outputs out of the logits, which become probabilities.
    #[inline(always)]
    fn read(&mut self, logits: &mut [E], classes: usize) {
        let width = self.width();
        for (row, outputs) in logits.chunks_exact_mut(classes).zip(self.outputs.chunks_exact_mut(width)) {
            let greatest = row_max(row);
            row.iter_mut().for_each(|value| *value = *value - greatest);
            outputs.iter_mut().zip(&self.classes).for_each(|(output, &class)| *output = row[class]);
            row.iter_mut().for_each(|value| *value = value.exp());
            let total = chunk_total(row);
            let (logarithm, scale) = (E::from_f64(total.ln()), E::from_f64(1.0 / total));
            row.iter_mut().for_each(|value| *value = *value * scale);
            outputs.iter_mut().for_each(|output| *output = (*output - logarithm).at_least(FLOOR));
        }
    }

    /// The loss.
    #[inline(always)]
    fn forward(&mut self) -> f64 {
        let (states, width) = (self.classes.len(), self.width());
        let mut shift = 0.0;
        for step in 0..self.steps {
            let (before, now) = self.alphas[step * (width + 2)..][..2 * (width + 2)].split_at_mut(width + 2);
            let (now, outputs) = (&mut now[2..], &self.outputs[step * width..][..width]);
            let ways = before[2..].iter().zip(&before[1..]).zip(before.iter().zip(&self.skips));
            for ((now, &output), ((&stay, &next), (&skip, &free))) in now.iter_mut().zip(outputs).zip(ways) {
                *now = log_sum(stay, next, skip + free) + output;
            }
            shift += lower(now);
        }
        match (self.steps, &self.alphas[self.steps * (width + 2) + 2..][..states]) {
            (0, [_]) => 0.0,
            (0, _) => f64::INFINITY,
            (_, [.., label, blank]) => ending(label.to_f64(), blank.to_f64()) - shift,
            (_, last) => ending(FLOOR, last[0].to_f64()) - shift,
        }
    }

    /// Takes from each probability the part of all alignments that are in its class in its step.
    #[inline(always)]
    fn backward(&mut self, probabilities: &mut [E], classes: usize) {
        let (states, width, floor) = (self.classes.len(), self.width(), E::from_f64(FLOOR));
        // `ln P` of all ways from a state to the end, and the same with the state's own output and two places after it.
        let (mut betas, mut onward) = (vec![floor; width], vec![floor; width + 2]);
        betas[states.saturating_sub(2)..states].fill(E::default());
        for step in (0..self.steps).rev() {
            let alphas = &mut self.alphas[(step + 1) * (width + 2) + 2..][..width];
            alphas.iter_mut().zip(&betas).for_each(|(alpha, &beta)| *alpha = *alpha + beta);
            let greatest = row_max(alphas);
            alphas.iter_mut().for_each(|alpha| *alpha = (*alpha - greatest).exp());
            let scale = E::from_f64(1.0 / chunk_total(alphas));
            let row = &mut probabilities[step * classes..][..classes];
            for (&part, &class) in alphas.iter().zip(&self.classes) {
                row[class] = row[class] - part * scale;
            }
            let outputs = &self.outputs[step * width..][..width];
            onward.iter_mut().zip(&betas).zip(outputs).for_each(|((to, &beta), &output)| *to = beta + output);
            let ways = onward.iter().zip(&onward[1..]).zip(onward[2..].iter().zip(&self.skips[2..]));
            for (beta, ((&stay, &next), (&skip, &free))) in betas.iter_mut().zip(ways) {
                *beta = log_sum(stay, next, skip + free);
            }
            lower(&mut betas);
        }
    }
}

/// `ln (e^a + e^b + e^c)`, from the greatest on.
#[inline(always)]
fn log_sum<E: Real>(a: E, b: E, c: E) -> E {
    let (low, high) = (a.lesser_of(b), a.greater_of(b));
    let (middle, greatest) = (high.lesser_of(c), high.greater_of(c));
    greatest + ((low - greatest).exp() + (middle - greatest).exp()).plus(1.0).log()
}

/// Takes the greatest logarithm from all, so that those that count keep their digits; returns it.
#[inline(always)]
fn lower<E: Real>(row: &mut [E]) -> f64 {
    let greatest = row_max(row);
    if greatest.to_f64() < NOTHING {
        return 0.0;
    }
    row.iter_mut().for_each(|value| *value = *value - greatest);
    greatest.to_f64()
}

/// `-ln (e^a + e^b)`, infinite where both are nothing.
fn ending(a: f64, b: f64) -> f64 {
    let greatest = a.max(b);
    if greatest < NOTHING {
        return f64::INFINITY;
    }
    -(greatest + ((a - greatest).exp() + (b - greatest).exp()).ln())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::Number;
    use crate::testing::{assert_close, context, on_ndarray, on_threads, tensor};

    /// The labels that a way through the steps spells: repetitions count once, blanks not at all.
    fn spelt(way: &[usize], blank: usize) -> Vec<usize> {
        let starts = (0..way.len()).filter(|&step| step == 0 || way[step] != way[step - 1]);
        starts.map(|step| way[step]).filter(|&class| class != blank).collect()
    }

    /// Loss and slopes of one sample, by every single way.
    fn naive(logits: &[f64], classes: usize, labels: &[usize], blank: usize) -> (f64, Vec<f64>) {
        let p: Vec<f64> = logits
            .chunks(classes)
            .flat_map(|row| {
                let total: f64 = row.iter().map(|value| value.exp()).sum();
                row.iter().map(move |value| value.exp() / total)
            })
            .collect();
        let steps = logits.len() / classes;
        let mut way = vec![0; steps];
        let (mut total, mut through) = (0.0, vec![0.0; logits.len()]);
        for number in 0..classes.pow(steps as u32) {
            let mut rest = number;
            way.iter_mut().for_each(|class| (*class, rest) = (rest % classes, rest / classes));
            if spelt(&way, blank) == labels {
                let part: f64 = way.iter().enumerate().map(|(step, class)| p[step * classes + class]).product();
                total += part;
                way.iter().enumerate().for_each(|(step, class)| through[step * classes + class] += part);
            }
        }
        (-total.ln(), p.iter().zip(&through).map(|(p, through)| p - through / total).collect())
    }

    fn run(operation: &Ctc, inputs: Tensors) -> (Vec<f64>, Vec<f64>) {
        let count = inputs.len();
        let found = operation.evaluate(inputs.clone(), &context(&inputs[0]));
        let ones = found.value.constant(1.0);
        let kept = Kept { inputs: Default::default(), shapes: Default::default(), output: None, saved: found.saved };
        let slopes = operation.gradient(kept, ones, &vec![true; count]).remove(0).expect("wanted");
        (found.value.to_f64(), slopes.to_f64())
    }

    fn bits((losses, slopes): &(Vec<f64>, Vec<f64>)) -> Vec<u64> {
        losses.iter().chain(slopes).map(|value| value.to_bits()).collect()
    }

    proptest! {
        /// Of random lengths; padding lies anywhere among the labels and may be the blank itself.
        #[test]
        fn losses_and_slopes_agree_with_every_single_way(
            (classes, blank) in (2usize..4).prop_flat_map(|classes| (Just(classes), 0..classes)),
            samples in prop::collection::vec((prop::collection::vec(-1i32..3, 3), 0usize..6), 1..4),
            scale in 0.1f64..30.0,
            seed: u64,
        ) {
            let (batch, steps) = (samples.len(), 5);
            let labels: Vec<i32> = samples.iter().flat_map(|(labels, _)| labels).map(|&label| label.min(classes as i32 - 1)).collect();
            let lengths: Vec<i32> = samples.iter().map(|&(_, length)| length as i32).collect();
            let logits = tensor::<f64>(seed, &[batch, steps, classes]).times(scale);
            let inputs = vec![logits.clone(), Tensor::from_vec(labels.clone(), &[batch, 3]), Tensor::from_vec(lengths, &[batch])];
            let operation = Ctc { blank, zero_infinity: false };
            let found = run(&operation, inputs.clone().into());
            let narrow = run(&operation, [&[logits.clone().cast(DType::F32)], &inputs[1..]].concat().into());
            let other = run(&operation, [&[on_ndarray::<f64>(&logits)], &inputs[1..]].concat().into());
            prop_assert_eq!(bits(&found), bits(&other));
            for (sample, (_, length)) in samples.iter().enumerate() {
                let values = &logits.to_f64()[sample * steps * classes..][..length * classes];
                let padded = labels[sample * 3..][..3].iter();
                let kept: Vec<usize> = padded.filter(|&&label| label >= 0 && label as usize != blank).map(|&label| label as usize).collect();
                let (loss, slopes) = naive(values, classes, &kept, blank);
                for (found, tolerance) in [(&found, 1e-10), (&narrow, 1e-4)] {
                    let (used, padding) = found.1[sample * steps * classes..][..steps * classes].split_at(values.len());
                    prop_assert!(padding.iter().all(|&slope| slope == 0.0));
                    assert_close(&found.0[sample..=sample], &[loss + 0.0], tolerance);
                    if loss.is_finite() {
                        assert_close(used, &slopes, tolerance);
                    } else {
                        prop_assert!(used.iter().all(|slope| slope.is_nan()));
                    }
                }
            }
        }
    }

    /// Where probabilities themselves would be 0 in any type.
    #[test]
    fn long_unlikely_sequences_are_finite() {
        let logits = Tensor::from_vec((0..600).map(|index| [400.0f32, 0.0, -400.0][index % 3]).collect(), &[1, 200, 3]);
        let labels = Tensor::from_vec([1, 2].repeat(50), &[1, 100]);
        let (loss, slopes) = run(&Ctc { blank: 0, zero_infinity: false }, smallvec![logits, labels]);
        // 50 labels 400 and 50 labels 800 below the blank, in the likeliest of alignments.
        assert!(loss[0] < 60_000.0 && loss[0] > 59_700.0, "{loss:?}");
        assert!(slopes.iter().all(|slope| slope.is_finite()));
    }

    #[test]
    fn what_cannot_be_aligned_may_count_nothing() {
        let inputs = || vec![tensor::<f32>(1, &[2, 3, 3]), Tensor::from_vec(vec![1, 1, 2, 1, -1, -1], &[2, 3])];
        let infinite = run(&Ctc { blank: 0, zero_infinity: false }, inputs().into());
        let zero = run(&Ctc { blank: 0, zero_infinity: true }, inputs().into());
        assert_eq!((infinite.0[0], zero.0[0]), (f64::INFINITY, 0.0));
        assert!(infinite.1[..9].iter().all(|slope| slope.is_nan()) && zero.1[..9] == [0.0; 9]);
        assert_eq!((infinite.0[1], &infinite.1[9..]), (zero.0[1], &zero.1[9..]));
    }

    #[test]
    fn a_batch_is_the_same_among_any_number_of_threads() {
        let labels: Vec<i32> = (0..37 * 11).map(|index| index % 20).collect();
        let labels = Tensor::from_vec(labels, &[37, 11]);
        let operation = Ctc { blank: 3, zero_infinity: false };
        let work = || run(&operation, smallvec![tensor::<f32>(5, &[37, 50, 20]).times(9.0), labels.clone()]);
        let [one, two, three] = on_threads(work);
        assert!(one == two && one == three);
    }
}
