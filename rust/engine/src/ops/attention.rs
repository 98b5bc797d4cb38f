//! Attention in several heads, with its masks, as one operation.

use std::sync::Arc;

use serde::Deserialize;

use super::binary::multiply;
use super::random::dropout_factors;
use super::reduction::{softmax, sum, widen};
use super::{Arithmetic, Context, Entry, Evaluation, Gradients, Kept, Operation, Reach, Tensors, entry};
use crate::Number;
use crate::cpu::attention::{Mask, Rows, Sizes, backward, forward};
use crate::program::{Dim, Kind, Type, show};
use crate::random::Stream;
use crate::tensor::{Comparison, DType, Real, Tensor};

/// The lines of the table.
pub(super) const ENTRIES: &[Entry] = &[entry::<Attention>("attention", 3, Some(5))];

/// In the place of a score that is masked: below all others, and finite, so that a row of nothing else is uniform.
fn masked(scores: DType) -> f64 {
    if scores == DType::F16 { -65504.0 } else { -1e30 }
}

/// `softmax(scale · Q · Kᵀ) · V` head by head (Vaswani et al., 2017): query `(batch, time, heads · width)`, key
/// `(batch, places, heads · width)`, value `(batch, places, heads · depth)` to `(batch, time, heads · depth)`, the heads side by
/// side.
///
/// A bool mask, `(batch or 1, heads or 1, time or 1, places or 1)`, is true where a query may look; `causal` lets each see
/// itself and what comes before. A query that may look nowhere gets the mean of all values. The weights are dropped with
/// probability `dropout` (default 0), or multiplied by `(batch, heads, time, places)` factors, the last input.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Attention {
    heads: usize,
    scale: f64,
    #[serde(default)]
    causal: bool,
    #[serde(default)]
    dropout: f64,
}

/// What the kinds of the inputs after the value say.
struct Inputs<'a> {
    query: &'a Tensor,
    key: &'a Tensor,
    value: &'a Tensor,
    mask: Option<&'a Tensor>,
    factors: Option<&'a Tensor>,
}

impl<'a> Inputs<'a> {
    fn of(inputs: &'a [Tensor]) -> Self {
        let [query, key, value, more @ ..] = inputs else { panic!("at least three inputs") };
        let mask = more.iter().find(|input| input.dtype() == DType::Bool);
        let factors = more.iter().find(|input| input.dtype().is_float());
        Self { query, key, value, mask, factors }
    }

    fn sizes(&self, heads: usize) -> Sizes {
        let (query, value) = (self.query.shape(), self.value.shape());
        Sizes {
            batch: query[0],
            heads,
            time: query[1],
            places: value[1],
            width: query[2] / heads,
            depth: value[2] / heads,
        }
    }
}

impl Operation for Attention {
    fn infer(&self, inputs: &[&Type]) -> Result<Type, String> {
        let names = ["query", "key", "value"];
        for (input, name) in inputs.iter().zip(names) {
            input.expect_kind(Kind::Float).map_err(|message| format!("the {name}: {message}"))?;
            if input.rank() != 3 || input.shape[2].batch {
                return Err(format!("the {name} must have shape (batch, time, features), got {}", show(&input.shape)));
            }
            if self.heads == 0 || input.shape[2].count == 0 || input.shape[2].count % self.heads != 0 {
                let got = show(&input.shape);
                return Err(format!("the features of the {name} must be divisible by heads={}, got {got}", self.heads));
            }
        }
        let (query, key, value) = (&inputs[0].shape, &inputs[1].shape, &inputs[2].shape);
        if key[0] != query[0] || key[2] != query[2] || value[..2] != key[..2] || key[1].count == 0 {
            let got = inputs[..3].iter().map(|input| show(&input.shape)).collect::<Vec<_>>().join(", ");
            return Err(format!(
                "query, key and value must have shapes (batch, time, features), (batch, places, features) and \
                 (batch, places, any), got {got}"
            ));
        }
        let whole = [query[0], Dim::known(self.heads), query[1], key[1]];
        let mut kinds = Vec::new();
        for input in &inputs[3..] {
            let broadcasts = input.kind == Kind::Bool;
            let fits = |(dim, &whole): (&Dim, &Dim)| *dim == whole || broadcasts && *dim == Dim::known(1);
            if input.rank() != 4 || !input.shape.iter().zip(&whole).all(fits) {
                let ones = if broadcasts { " (or 1 each)" } else { "" };
                return Err(format!("expected a mask or factors of shape {}{ones}, got {input}", show(&whole)));
            }
            kinds.push(input.kind);
        }
        if kinds.contains(&Kind::Int) || kinds.len() == 2 && kinds != [Kind::Bool, Kind::Float] {
            return Err("after the value come at most one bool mask and one float tensor of factors".to_owned());
        }
        if !(0.0..1.0).contains(&self.dropout) {
            return Err(format!("dropout must be at least 0 and below 1, got {}", self.dropout));
        }
        Ok(Type::float(vec![query[0], query[1], value[2]]))
    }

    fn arithmetic(&self) -> Arithmetic {
        Arithmetic::Half
    }

    fn reach(&self, _: &[&Type]) -> Reach {
        Reach::Sample
    }

    fn evaluate(&self, inputs: Tensors, context: &Context) -> Evaluation {
        let mut given = Inputs::of(&inputs);
        let drawn = (self.dropout > 0.0).then(|| self.factors(&given, context.stream));
        given.factors = drawn.as_ref().or(given.factors);
        let [value, weights] = match given.query.dtype() {
            DType::F32 if given.query.is_cpu() => self.forward_cpu::<f32>(&given),
            DType::F64 if given.query.is_cpu() => self.forward_cpu::<f64>(&given),
            _ => self.forward_tensors(&given),
        };
        Evaluation { value, saved: [Some(weights), drawn].into_iter().flatten().collect() }
    }

    fn drawn(&self, inputs: &[Tensor], context: &Context) -> Option<(Arc<dyn Operation>, Tensor)> {
        let calm = Arc::new(Self { dropout: 0.0, ..self.clone() });
        (self.dropout > 0.0).then(|| (calm as _, self.factors(&Inputs::of(inputs), context.stream)))
    }

    fn gradient(&self, mut kept: Kept, gradient: Tensor, wanted: &[bool]) -> Gradients {
        let drawn = (self.dropout > 0.0).then(|| kept.saved.pop().expect("factors"));
        let weights = kept.saved.pop().expect("weights");
        let mut given = Inputs::of(&kept.inputs);
        given.factors = drawn.as_ref().or(given.factors);
        let found = match gradient.dtype() {
            DType::F32 if gradient.is_cpu() => self.backward_cpu::<f32>(&given, weights, gradient),
            DType::F64 if gradient.is_cpu() => self.backward_cpu::<f64>(&given, weights, gradient),
            _ => self.backward_tensors(&given, weights, gradient),
        };
        let mut gradients: Gradients = found.into_iter().map(Some).collect();
        gradients.resize(wanted.len(), None);
        gradients
    }
}

impl Attention {
    fn factors(&self, given: &Inputs<'_>, stream: Stream) -> Tensor {
        let sizes = given.sizes(self.heads);
        dropout_factors(self.dropout, stream, &sizes.weights(), given.query.dtype(), &given.query.device())
    }

    /// The output and the weights.
    fn forward_cpu<E: Real>(&self, given: &Inputs<'_>) -> [Tensor; 2] {
        let sizes = given.sizes(self.heads);
        let [query, key, value] = given.contiguous::<E>();
        let mask = given.mask.map(|mask| Beside::of::<E>(mask, &sizes));
        let factors = given.factors.map(|factors| factors.clone().contiguous::<E>());
        let (y, weights) = forward(
            &sizes,
            Rows { scale: E::from_f64(self.scale), causal: self.causal, mask: mask.as_ref().map(Beside::mask::<E>) },
            [&query, &key, &value].map(Tensor::elements::<E>),
            factors.as_ref().map(Tensor::elements::<E>),
        );
        [Tensor::from_block(y, &sizes.output()), Tensor::from_block(weights, &sizes.weights())]
    }

    /// Gradients of query, key and value.
    fn backward_cpu<E: Real>(&self, given: &Inputs<'_>, weights: Tensor, gradient: Tensor) -> [Tensor; 3] {
        let sizes = given.sizes(self.heads);
        let [query, key, value] = given.contiguous::<E>();
        let mask = given.mask.map(|mask| Beside::of::<E>(mask, &sizes));
        let factors = given.factors.map(|factors| factors.clone().contiguous::<E>());
        let gradient = gradient.contiguous::<E>();
        let found = backward(
            &sizes,
            Rows { scale: E::from_f64(self.scale), causal: self.causal, mask: mask.as_ref().map(Beside::mask::<E>) },
            [&query, &key, &value].map(Tensor::elements::<E>),
            weights.elements::<E>(),
            factors.as_ref().map(Tensor::elements::<E>),
            gradient.elements::<E>(),
        );
        let mut shapes = [&query, &key, &value].map(Tensor::shape).into_iter();
        found.map(|values| Tensor::from_block(values, &shapes.next().expect("three")))
    }

    fn forward_tensors(&self, given: &Inputs<'_>) -> [Tensor; 2] {
        let [query, key, value] = given.split(self.heads);
        let dtype = query.dtype();
        let mut scores = query.times(self.scale).matmul(key.transpose());
        if let Some(allowed) = self.allowed(given) {
            let masked = scores.constant(masked(scores.dtype()));
            scores = Tensor::choose(allowed, scores, masked);
        }
        let weights = softmax(widen(scores), 3).cast(dtype);
        let y = join(given.dropped(weights.clone()).matmul(value));
        [y, weights]
    }

    fn backward_tensors(&self, given: &Inputs<'_>, weights: Tensor, gradient: Tensor) -> [Tensor; 3] {
        let [query, key, value] = given.split(self.heads);
        let gradient = split(&gradient, self.heads);
        let dtype = gradient.dtype();
        let dvalue = given.dropped(weights.clone()).transpose().matmul(gradient.clone());
        let dweights = widen(given.dropped(gradient.matmul(value.transpose())));
        let weights = widen(weights);
        let mean = sum(multiply(weights.clone(), dweights.clone()), &[3]);
        let mut dscores = (weights * (dweights - mean)).times(self.scale).cast(dtype);
        if let Some(allowed) = self.allowed(given) {
            let none = dscores.constant(0.0);
            dscores = Tensor::choose(allowed, dscores, none);
        }
        let dkey = dscores.clone().transpose().matmul(query);
        [dscores.matmul(key), dkey, dvalue].map(join)
    }

    /// Where a query may look, to be broadcast to the weights; `None` if everywhere.
    fn allowed(&self, given: &Inputs<'_>) -> Option<Tensor> {
        let Sizes { time, places, .. } = given.sizes(self.heads);
        let causal = self.causal.then(|| {
            let device = given.query.device();
            let steps = |count: usize, shape: &[usize]| {
                Tensor::from_values((0..count as i32).collect::<Vec<_>>(), shape, &device)
            };
            steps(places, &[1, 1, 1, places]).compare(Comparison::LessEqual, steps(time, &[1, 1, time, 1]))
        });
        match (causal, given.mask.cloned()) {
            (Some(causal), Some(mask)) => Some(causal.and(mask)),
            (causal, mask) => causal.or(mask),
        }
    }
}

impl Inputs<'_> {
    fn contiguous<E: Real>(&self) -> [Tensor; 3] {
        [self.query, self.key, self.value].map(|tensor| tensor.clone().contiguous::<E>())
    }

    /// `(batch, heads, time, width)` of each.
    fn split(&self, heads: usize) -> [Tensor; 3] {
        [self.query, self.key, self.value].map(|tensor| split(tensor, heads))
    }

    fn dropped(&self, weights: Tensor) -> Tensor {
        match self.factors {
            Some(factors) => multiply(weights, factors.clone()),
            None => weights,
        }
    }
}

fn split(x: &Tensor, heads: usize) -> Tensor {
    let shape = x.shape();
    x.clone().reshape(&[shape[0], shape[1], heads, shape[2] / heads]).permute(&[0, 2, 1, 3])
}

fn join(x: Tensor) -> Tensor {
    let shape = x.shape();
    x.permute(&[0, 2, 1, 3]).reshape(&[shape[0], shape[2], shape[1] * shape[3]])
}

/// A mask as numbers whose rows are whole, and the step to the next along each axis before them (0: the same again).
struct Beside {
    numbers: Tensor,
    steps: [usize; 3],
}

impl Beside {
    fn of<E: Real>(mask: &Tensor, sizes: &Sizes) -> Self {
        let mut shape = mask.shape();
        shape[3] = sizes.places;
        let numbers = mask.clone().cast(E::DTYPE).broadcast_to(&shape).contiguous::<E>();
        let lengths = [shape[1] * shape[2] * shape[3], shape[2] * shape[3], shape[3]];
        let steps = [0, 1, 2].map(|axis| if shape[axis] == 1 { 0 } else { lengths[axis] });
        Self { numbers, steps }
    }

    fn mask<E: Real>(&self) -> Mask<'_, E> {
        Mask { numbers: self.numbers.elements::<E>(), steps: self.steps }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::testing::{assert_close, context, numbers, on_ndarray, on_threads, tensor};

    #[derive(Clone, Debug)]
    struct Case {
        sizes: Sizes,
        causal: bool,
        /// Which axes of a mask are whole; none without one.
        mask: Option<[bool; 4]>,
        dropout: f64,
    }

    fn cases() -> impl Strategy<Value = Case> {
        let sizes = (1usize..4, 1usize..4, 1usize..8, 1usize..8, 1usize..5, 1usize..5);
        let sizes = sizes.prop_map(|(batch, heads, time, places, width, depth)| Sizes {
            batch,
            heads,
            time,
            places,
            width,
            depth,
        });
        let mask = prop::option::of(any::<[bool; 4]>());
        (sizes, any::<bool>(), mask, prop::sample::select(&[0.0, 0.4][..]))
            .prop_map(|(sizes, causal, mask, dropout)| Case { sizes, causal, mask, dropout })
    }

    impl Case {
        fn operation(&self) -> Attention {
            Attention { heads: self.sizes.heads, scale: 0.7, causal: self.causal, dropout: self.dropout }
        }

        /// Query, key, value and mask.
        fn inputs<E: Real>(&self, seed: u64) -> Vec<Tensor> {
            let Sizes { batch, heads, time, places, width, depth } = self.sizes;
            let mut inputs = vec![
                tensor::<E>(seed, &[batch, time, heads * width]).times(3.0),
                tensor::<E>(seed ^ 1, &[batch, places, heads * width]).times(3.0),
                tensor::<E>(seed ^ 2, &[batch, places, heads * depth]),
            ];
            if let Some(whole) = self.mask {
                let mut shape = self.sizes.weights();
                shape.iter_mut().zip(whole).for_each(|(length, whole)| *length = if whole { *length } else { 1 });
                let values: Vec<i32> =
                    numbers(seed ^ 3, shape.iter().product()).iter().map(|&x| i32::from(x > 0.0)).collect();
                inputs.push(Tensor::from_vec(values, &shape).cast(DType::Bool));
            }
            inputs
        }

        /// The output and the gradients of query, key and value for that of the output, by single products.
        fn naive(&self, inputs: &[Vec<f64>], factors: &[f64], gradient: &[f64]) -> [Vec<f64>; 4] {
            let Sizes { batch, heads, time, places, width, depth } = self.sizes;
            let mut found = [
                vec![0.0; gradient.len()],
                vec![0.0; inputs[0].len()],
                vec![0.0; inputs[1].len()],
                vec![0.0; inputs[2].len()],
            ];
            for ((b, h), i) in
                (0..batch).flat_map(|b| (0..heads).map(move |h| (b, h))).flat_map(|bh| (0..time).map(move |i| (bh, i)))
            {
                let q = |c: usize| ((b * time + i) * heads + h) * width + c;
                let k = |j: usize, c: usize| ((b * places + j) * heads + h) * width + c;
                let v = |j: usize, c: usize| ((b * places + j) * heads + h) * depth + c;
                let y = |c: usize| ((b * time + i) * heads + h) * depth + c;
                let f = |j: usize| factors[((b * heads + h) * time + i) * places + j];
                let seen = |j: usize| {
                    (!self.causal || j <= i)
                        && inputs.get(3).is_none_or(|mask| {
                            let whole = self.mask.expect("a mask");
                            let place = [b, h, i, j].into_iter().zip(self.sizes.weights()).zip(whole);
                            mask[place.fold(
                                0,
                                |sum, ((place, length), whole)| if whole { sum * length + place } else { sum },
                            )] != 0.0
                        })
                };
                let nowhere = !(0..places).any(seen);
                let score = |j: usize| 0.7 * (0..width).map(|c| inputs[0][q(c)] * inputs[1][k(j, c)]).sum::<f64>();
                let power = |j: usize| {
                    if nowhere {
                        1.0
                    } else if seen(j) {
                        score(j).exp()
                    } else {
                        0.0
                    }
                };
                let total: f64 = (0..places).map(power).sum();
                let p: Vec<f64> = (0..places).map(|j| power(j) / total).collect();
                let slopes: Vec<f64> = (0..places)
                    .map(|j| f(j) * (0..depth).map(|c| gradient[y(c)] * inputs[2][v(j, c)]).sum::<f64>())
                    .collect();
                let mean: f64 = p.iter().zip(&slopes).map(|(p, slope)| p * slope).sum();
                for j in 0..places {
                    for c in 0..depth {
                        found[0][y(c)] += p[j] * f(j) * inputs[2][v(j, c)];
                        found[3][v(j, c)] += p[j] * f(j) * gradient[y(c)];
                    }
                    let dscore = if nowhere { 0.0 } else { 0.7 * p[j] * (slopes[j] - mean) };
                    for c in 0..width {
                        found[1][q(c)] += dscore * inputs[1][k(j, c)];
                        found[2][k(j, c)] += dscore * inputs[0][q(c)];
                    }
                }
            }
            found
        }

        fn check<E: Real>(&self, seed: u64, tolerance: f64) {
            let (operation, inputs) = (self.operation(), self.inputs::<E>(seed));
            let gradient = tensor::<E>(seed ^ 4, &self.sizes.output());
            let stream = context(&inputs[0]).stream;
            let factors = operation.factors(&Inputs::of(&inputs), stream).to_f64();
            let wide: Vec<Vec<f64>> = inputs.iter().map(|input| input.clone().cast(E::DTYPE).to_f64()).collect();
            let expected = self.naive(&wide, &factors, &gradient.to_f64());
            let place = |tensor: &Tensor| match tensor.dtype() {
                DType::Bool => on_ndarray::<i32>(&tensor.clone().cast(DType::I32)).cast(DType::Bool),
                _ => on_ndarray::<E>(tensor),
            };
            let there: Vec<Tensor> = inputs.iter().map(place).collect();
            for found in
                [run(&operation, inputs.into(), gradient.clone()), run(&operation, there.into(), place(&gradient))]
            {
                for (found, expected) in found.iter().zip(&expected) {
                    assert_close(&found.to_f64(), expected, tolerance);
                }
            }
        }
    }

    /// The output and the gradients.
    fn run(operation: &Attention, inputs: Tensors, gradient: Tensor) -> Vec<Tensor> {
        let Evaluation { value, saved } = operation.evaluate(inputs.clone(), &context(&inputs[0]));
        let wanted: Vec<bool> = inputs.iter().map(|input| input.dtype().is_float()).collect();
        let kept = Kept { shapes: inputs.iter().map(Tensor::shape).collect(), inputs, output: None, saved };
        let gradients = operation.gradient(kept, gradient, &wanted);
        [value].into_iter().chain(gradients.into_iter().flatten()).collect()
    }

    proptest! {
        #[test]
        fn values_and_gradients_agree_with_single_products(case in cases(), seed: u64) {
            case.check::<f64>(seed, 1e-11);
            case.check::<f32>(seed, 1e-4);
        }
    }

    #[test]
    fn drawn_factors_give_what_chance_gave() {
        let sizes = Sizes { batch: 2, heads: 2, time: 3, places: 4, width: 2, depth: 3 };
        let case = Case { sizes, causal: true, mask: Some([true, false, false, true]), dropout: 0.5 };
        let (operation, inputs) = (case.operation(), case.inputs::<f64>(7));
        let context = context(&inputs[0]);
        let (calm, factors) = operation.drawn(&inputs, &context).expect("chance");
        let expected = operation.evaluate(inputs.clone().into(), &context).value;
        assert_eq!(calm.evaluate([inputs, vec![factors]].concat().into(), &context).value.to_f64(), expected.to_f64());
    }

    #[test]
    fn a_batch_is_the_same_among_any_number_of_threads() {
        let sizes = Sizes { batch: 7, heads: 4, time: 40, places: 40, width: 16, depth: 16 };
        for batch in [1, 7] {
            let case = Case { sizes: Sizes { batch, ..sizes }, causal: true, mask: None, dropout: 0.1 };
            let [one, two, three] = on_threads(|| {
                let gradient = tensor::<f32>(9, &case.sizes.output());
                run(&case.operation(), case.inputs::<f32>(4).into(), gradient)
                    .iter()
                    .map(Tensor::to_f64)
                    .collect::<Vec<_>>()
            });
            assert!(one == two && one == three);
        }
    }
}
