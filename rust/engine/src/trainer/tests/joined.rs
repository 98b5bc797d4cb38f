//! Parameters that are updated together against the same ones, each by itself.

use super::*;
use crate::Number;
use crate::optimizer::{Squares, defaults};
use crate::tensor::BRIEF;
use crate::trainer::joined::{Layout, MOST, Padding};
use crate::trainer::update::Update;

const SHAPES: [&[usize]; 5] = [&[3, 4], &[4], &[1024], &[1], &[50, 41]];
const SCALE: f64 = 0.5;
const RATE: f64 = 0.01;

/// Parameters `p0`, `p1`, … of these shapes.
fn session(shapes: &[&[usize]], device: &Device, dtype: DType, config: &serde_json::Value) -> Session {
    let mut program = Program::default();
    for (index, shape) in shapes.iter().enumerate() {
        let initializer = Initializer::Normal { mean: 0.0, stddev: 0.7 };
        let path = format!("p{index}");
        let parameter = Parameter { path, shape: shape.to_vec(), role: Role::Kernel, initializer };
        program.parameter(parameter).expect("a new path");
    }
    let mut session =
        Session::new(Arc::new(program), device.clone(), dtype, 5, &mut Arrays::new()).expect("parameters");
    session
        .set_optimizer(&serde_json::from_value(config.clone()).expect("a configuration"))
        .expect("a known optimizer");
    session
}

impl Session {
    fn gradients_of(&self, seed: u64, factor: f64) -> Vec<(ValueId, Tensor)> {
        let trained = &self.training.as_ref().expect("compiled").trained;
        let gradient = |&id: &ValueId| {
            let shape = self.state[id].as_ref().expect("initialised").shape();
            let values: Vec<f64> =
                numbers(seed + id as u64, shape.iter().product()).iter().map(|x| x * factor).collect();
            (id, Tensor::from_f64(&values, &shape, self.dtype, &self.device))
        };
        trained.iter().map(gradient).collect()
    }

    fn update_with(&mut self, gradients: Vec<(ValueId, Tensor)>) -> Update {
        let training = self.training.as_mut().expect("compiled");
        training.update(&mut self.state, gradients.into_iter().collect(), &[], SCALE, RATE)
    }

    fn bits(&self) -> Vec<(String, Vec<u64>)> {
        let bits = |(path, array): (String, Tensor)| (path, array.to_f64().into_iter().map(f64::to_bits).collect());
        self.whole_state("optimizer.").expect("compiled").into_iter().map(bits).collect()
    }
}

fn norm(values: &[f64]) -> f64 {
    values.iter().map(|value| value * value).sum::<f64>().sqrt()
}

#[test]
fn updates_are_those_of_each_parameter_by_itself() {
    for name in defaults().keys().filter(|name| **name != "lbfgs") {
        for dtype in [DType::F32, DType::F64] {
            let config = json!({"name": name});
            let [mut together, mut apart] = [(); 2].map(|()| session(&SHAPES, &Device::ndarray(), dtype, &config));
            for seed in [10, 20, 30] {
                let gradients = together.gradients_of(seed, 1.0);
                let update = together.update_with(gradients.clone());
                let Session { training, state, .. } = &mut apart;
                let training = training.as_mut().expect("compiled");
                let mut all = Squares::default();
                for (place, (id, gradient)) in gradients.into_iter().enumerate() {
                    let movement = update.parameters[place];
                    assert_close(&[movement.gradient_norm], &[SCALE * norm(&gradient.to_f64())], 1e-6);
                    let squares = training.update_one(state, id, gradient, SCALE, RATE).squares();
                    assert_close(&[movement.update_ratio], &[squares.ratio()], 1e-6);
                    all.parameter += squares.parameter;
                    all.update += squares.update;
                }
                training.updated(state);
                assert_close(&[update.update_ratio], &[all.ratio()], 1e-6);
                assert_eq!(together.bits(), apart.bits(), "{name}");
            }
        }
    }
}

/// What a device cannot tell by 32 bits: squares of large numbers, and which gradient is not finite.
#[test]
fn gradients_that_are_not_finite_are_told_from_those_that_are_large() {
    let config = json!({"name": "sgd", "clip_norm": 1.0});
    let [mut device, mut host] =
        [Device::ndarray(), Device::cpu()].map(|device| session(&SHAPES, &device, DType::F32, &config));
    let updates = [&mut device, &mut host].map(|session| session.update_with(session.gradients_of(3, 1e25)));
    assert!(updates.iter().all(|update| update.finite));
    let [found, expected] = updates.map(|update| {
        update.parameters.iter().flat_map(|of| [of.gradient_norm, of.update_ratio]).collect::<Vec<f64>>()
    });
    found.iter().zip(&expected).for_each(|(found, expected)| assert_close(&[found / expected], &[1.0], 1e-6));
    let values = |session: &Session| session.state.iter().flatten().flat_map(Tensor::to_f64).collect::<Vec<f64>>();
    assert_close(&values(&device), &values(&host), 1e-6);

    let before = device.bits();
    let mut gradients = device.gradients_of(4, 1.0);
    let shape = gradients[2].1.shape();
    gradients[2].1 = Tensor::full(&shape, f64::NAN, DType::F32, &Device::ndarray());
    let update = device.update_with(gradients);
    assert!(!update.finite);
    let finite: Vec<bool> = update.parameters.iter().map(|of| of.gradient_norm.is_finite()).collect();
    assert_eq!(finite, [true, true, false, true, true]);
    assert_eq!(device.bits(), before);
}

#[test]
fn only_what_one_update_can_be_made_of_is_joined() {
    let members = |shapes: &[&[usize]], config: &serde_json::Value| -> Vec<Vec<ValueId>> {
        let mut session = session(shapes, &Device::ndarray(), DType::F32, config);
        let gradients = session.gradients_of(1, 1.0).into_iter().collect();
        let parts = session.training.as_mut().expect("compiled").parts(gradients);
        parts.iter().map(|part| part.layout.ids().collect()).collect()
    };
    assert_eq!(members(&SHAPES, &json!({"name": "adam"})), [[0, 1, 2, 3, 4]]);
    assert_eq!(members(&SHAPES, &json!({"name": "lamb"})), [[0], [1], [2], [3], [4]]);
    assert_eq!(members(&[&[2], &[BRIEF + 1], &[2]], &json!({"name": "adam"})), [vec![0, 2], vec![1]]);
    let groups = |group: serde_json::Value| json!({"name": "adamw", "groups": [group]});
    for group in [
        json!({"paths": ["p1", "p3"], "learning_rate": 2.0}),
        json!({"paths": ["p1", "p3"], "weight_decay": 0.3}),
        json!({"paths": ["p1", "p3"], "clip": false}),
    ] {
        assert_eq!(members(&SHAPES, &groups(group)), [vec![0, 2, 4], vec![1, 3]]);
    }
    let many = vec![SHAPES[0]; MOST + 2];
    assert_eq!(members(&many, &json!({"name": "adam"})), [(0..MOST).collect::<Vec<_>>(), vec![MOST, MOST + 1]]);
    // Where eps is 0, Adam makes NaN of zeros.
    let without = json!({"name": "adam", "hyperparameters": {"eps": 0.0}});
    assert_eq!(members(&SHAPES, &without), [[0], [1], [2], [3], [4]]);
}

proptest! {
    #[test]
    fn arrays_come_back_as_they_were_joined(
        lengths in prop::collection::vec(prop::collection::vec(1_usize..60, 1..3), 1..6),
        seed in 0_u64..1000,
    ) {
        let members: Vec<(ValueId, crate::tensor::Lengths)> =
            lengths.iter().enumerate().map(|(id, shape)| (id, shape.as_slice().into())).collect();
        let layout = Layout { members };
        let arrays: Vec<Tensor> = lengths
            .iter()
            .zip(seed..)
            .map(|(shape, seed)| {
                Tensor::from_f64(&numbers(seed, shape.iter().product()), shape, DType::F64, &Device::ndarray())
            })
            .collect();
        let joined = layout.join(arrays.iter().cloned(), &mut Padding::default());
        let sums = layout.sums(vec![joined.clone(), joined.clone().times(-2.0)]).to_f64();
        let mut rest = &*sums;
        let found = [layout.read(&mut rest), layout.read(&mut rest)];
        prop_assert!(rest.is_empty());
        for (factor, found) in [1.0, -2.0].into_iter().zip(found) {
            let expected: Vec<f64> = arrays.iter().map(|array| factor * array.to_f64().iter().sum::<f64>()).collect();
            assert_close(&found, &expected, 1e-12);
        }
        let back = layout.split(joined);
        prop_assert_eq!(back.len(), arrays.len());
        for (back, array) in back.iter().zip(&arrays) {
            prop_assert_eq!(back.shape(), array.shape());
            prop_assert_eq!(back.to_f64(), array.to_f64());
        }
    }
}
