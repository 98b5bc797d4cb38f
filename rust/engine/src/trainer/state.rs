//! All state in and out, as arrays by path.

use super::update::ParameterState;
use super::{Arrays, Session};
use crate::program::{Source, ValueId, show_lengths};
use crate::tensor::Tensor;
use crate::{DType, Error, Result};

impl Session {
    /// Parameters and buffers by path; the arrays share storage with the session until it trains on.
    pub fn state(&self) -> Arrays {
        self.paths().map(|(id, path)| (path.to_owned(), self.state[id].clone().expect("initialised"))).collect()
    }

    /// Replaces parameters, whose averages begin anew, and buffers; nothing changes if one does not fit.
    pub fn load_state(&mut self, arrays: Arrays) -> Result<()> {
        let mut loaded = Vec::with_capacity(arrays.len());
        for (path, array) in arrays {
            let (id, shape) = self.find(&path)?;
            loaded.push((id, self.fit(&path, &shape, array)?));
        }
        for (id, tensor) in loaded {
            self.state[id] = Some(tensor);
            if let Some(average) = self.training.as_mut().and_then(|training| training.average.as_mut()) {
                average.begin_anew(&self.state, id);
            }
        }
        Ok(())
    }

    /// Averages of the parameters by path; none where no average is kept, or before the first update.
    pub fn averages(&self) -> Arrays {
        let average = self.training.as_ref().and_then(|training| training.average.as_ref());
        let arrays = average.into_iter().flat_map(|average| &average.arrays);
        arrays.map(|(&id, average)| (self.path(id).to_owned(), average.clone())).collect()
    }

    /// The optimizer's arrays as `<name>.<path>`, averages as `average.<path>`, gradients of an open accumulation group as
    /// `accumulated.<path>`.
    pub fn optimizer_state(&self) -> Result<Arrays> {
        let training = self.training()?;
        let mut arrays = Arrays::new();
        for (&id, state) in &training.state {
            let path = self.path(id);
            let slots = training.rule.state(&training.settings[&id].target);
            for (slot, moment) in slots.iter().zip(&state.moments) {
                arrays.insert(format!("{}.{path}", slot.name), moment.clone());
            }
            arrays.insert(format!("updates.{path}"), count(state.updates));
        }
        for (&id, sum) in &training.group.sums {
            arrays.insert(format!("accumulated.{}", self.path(id)), sum.clone());
        }
        for (path, average) in self.averages() {
            arrays.insert(format!("average.{path}"), average);
        }
        self.put_memory(&mut arrays)?;
        arrays.insert("updates".to_owned(), count(training.updates));
        arrays.insert("accumulated_batches".to_owned(), count(training.group.batches as u64));
        arrays.insert("accumulated_weight".to_owned(), Tensor::from_vec(vec![training.group.weight], &[]));
        if let Some(scale) = &training.loss_scale {
            arrays.insert("loss_scale".to_owned(), Tensor::from_vec(vec![scale.factor], &[]));
            arrays.insert("good_updates".to_owned(), count(scale.good));
        }
        Ok(arrays)
    }

    /// [`Self::state`] and, their names after a prefix, [`Self::optimizer_state`].
    pub fn whole_state(&self, prefix: &str) -> Result<Arrays> {
        let optimizer = self.optimizer_state()?.into_iter().map(|(name, array)| (format!("{prefix}{name}"), array));
        Ok(self.state().into_iter().chain(optimizer).collect())
    }

    /// Replaces the optimizer's arrays by those that [`Self::optimizer_state`] gave.
    pub fn load_optimizer_state(&mut self, mut arrays: Arrays) -> Result<()> {
        let training = self.training()?;
        let mut averages = std::collections::BTreeMap::new();
        let mut state = std::collections::BTreeMap::new();
        let mut sums = std::collections::BTreeMap::new();
        let parameters: Vec<(ValueId, String, Vec<usize>)> = self
            .program
            .parameters()
            .map(|(id, parameter)| (id, parameter.path.clone(), parameter.shape.clone()))
            .collect();
        for (id, path, shape) in parameters {
            if let Some(sum) = arrays.remove(&format!("accumulated.{path}")) {
                sums.insert(id, self.fit(&path, &shape, sum)?);
            }
            if let Some(average) = arrays.remove(&format!("average.{path}")) {
                averages.insert(id, self.fit(&path, &shape, average)?);
            }
            let Some(updates) = arrays.remove(&format!("updates.{path}")) else {
                continue;
            };
            let moments = training
                .rule
                .state(&training.settings[&id].target)
                .iter()
                .map(|slot| {
                    let key = format!("{}.{path}", slot.name);
                    let array = arrays.remove(&key).ok_or_else(|| missing(&key))?;
                    self.fit(&key, &slot.shape, array)
                })
                .collect::<Result<_>>()?;
            let updates = number(&format!("updates.{path}"), &updates)? as u64;
            state.insert(id, ParameterState { moments, updates });
        }
        let memory = self.take_memory(&mut arrays)?;
        let mut number = |key: &str| number(key, &arrays.remove(key).ok_or_else(|| missing(key))?);
        let updates = number("updates")? as u64;
        let batches = number("accumulated_batches")? as usize;
        let weight = number("accumulated_weight")?;
        let mut loss_scale = training.loss_scale;
        if let Some(scale) = &mut loss_scale {
            (scale.factor, scale.good) = (number("loss_scale")?, number("good_updates")? as u64);
        }
        if let Some(key) = arrays.keys().next() {
            return Err(Error::Missing(format!("optimizer state: {key:?} is not of this program and optimizer")));
        }
        let training = self.training.as_mut().ok_or_else(super::update::not_compiled)?;
        training.state = state;
        training.updates = updates;
        training.loss_scale = loss_scale;
        training.memory = memory;
        if let Some(average) = &mut training.average {
            average.arrays = averages;
            if !average.arrays.is_empty() {
                // What was not trained stood still meanwhile, and its average with it.
                average.begin(&self.state, &training.trained);
            }
        }
        training.group = super::update::Group { sums, weight, batches };
        Ok(())
    }

    /// An array made to fit a place: its shape compared, its type converted, moved to the device.
    pub(super) fn fit(&self, path: &str, shape: &[usize], array: Tensor) -> Result<Tensor> {
        if array.shape() != shape {
            return Err(Error::value(format!(
                "{path}: expected shape {}, got {}",
                show_lengths(shape),
                show_lengths(&array.shape())
            )));
        }
        if !array.dtype().is_float() {
            return Err(Error::Type(format!("{path}: expected floats, got {}", array.dtype().name())));
        }
        let array = array.cast(self.dtype);
        Ok(if array.device() == self.device { array } else { Tensor::from_data(array.try_into_data()?, &self.device) })
    }

    fn paths(&self) -> impl Iterator<Item = (ValueId, &str)> {
        self.program.values().iter().enumerate().filter_map(|(id, value)| match &value.source {
            Source::Parameter(parameter) => Some((id, parameter.path.as_str())),
            Source::Buffer(buffer) => Some((id, buffer.path.as_str())),
            _ => None,
        })
    }

    pub(super) fn path(&self, id: ValueId) -> &str {
        match &self.program.values()[id].source {
            Source::Parameter(parameter) => &parameter.path,
            other => panic!("optimizer state belongs to parameters, not to {other:?}"),
        }
    }

    fn find(&self, path: &str) -> Result<(ValueId, Vec<usize>)> {
        let (id, _) = self
            .paths()
            .find(|(_, known)| *known == path)
            .ok_or_else(|| Error::Missing(format!("there is no parameter or buffer {path:?}")))?;
        Ok((id, self.program.values()[id].ty.shape.iter().map(|dim| dim.count).collect()))
    }
}

fn count(number: u64) -> Tensor {
    Tensor::from_vec(vec![number as i64], &[]).cast(DType::I64)
}

pub(super) fn number(key: &str, array: &Tensor) -> Result<f64> {
    match array.len() {
        1 => Ok(array.scalar()),
        _ => Err(Error::value(format!("{key}: expected one number, got shape {}", show_lengths(&array.shape())))),
    }
}

pub(super) fn missing(key: &str) -> Error {
    Error::Missing(format!("optimizer state: {key:?} is missing"))
}
