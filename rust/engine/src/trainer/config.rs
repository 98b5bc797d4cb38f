//! How a session trains, as Python says it, and what that means for each parameter.

use std::collections::{BTreeMap, HashSet};

use serde::Deserialize;
use serde_json::Value as Json;

use super::average::Average;
use super::loss_scale::LossScaleConfig;
use super::update::Training;
use super::{Session, solver};
use crate::gradient::Method;
use crate::optimizer::{self, Target};
use crate::program::{Checkpoint, Role, ValueId};
use crate::{Error, Program, Result};

/// How a session trains.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OptimizerConfig {
    /// The rule's name.
    pub name: String,
    /// The rule's hyperparameters; absent ones have their defaults.
    #[serde(default)]
    pub hyperparameters: serde_json::Map<String, Json>,
    /// The greatest global gradient norm.
    #[serde(default)]
    pub clip_norm: Option<f64>,
    /// The greatest absolute value of a gradient's element.
    #[serde(default)]
    pub clip_value: Option<f64>,
    /// Micro-batches per update.
    #[serde(default = "one")]
    pub accumulate_gradients: usize,
    /// `"autodiff"`, `"numerical"` or `"numerical_batch"`.
    #[serde(default = "autodiff")]
    pub gradient_method: String,
    /// The roles that weight decay applies to.
    #[serde(default = "decay_roles")]
    pub decay_roles: Vec<String>,
    /// Paths of parameters that stay as they are.
    #[serde(default)]
    pub frozen: Vec<String>,
    /// Parameters that are trained otherwise than the rest.
    #[serde(default)]
    pub groups: Vec<GroupConfig>,
    /// What part of the averaged weights each update keeps; `None` for no average.
    #[serde(default)]
    pub average: Option<f64>,
    /// How the loss is scaled; by default not at all.
    #[serde(default)]
    pub loss_scale: Option<LossScaleConfig>,
    /// Which activations are computed again instead of kept.
    #[serde(default)]
    pub checkpoint_activations: Checkpoint,
}

/// Parameters that are trained otherwise than the rest.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GroupConfig {
    /// Their paths.
    pub paths: Vec<String>,
    /// What their learning rate is multiplied by.
    #[serde(default = "unit")]
    pub learning_rate: f64,
    /// Their weight decay; `None` for that of the rule.
    #[serde(default)]
    pub weight_decay: Option<f64>,
    /// Whether their gradients are clipped.
    #[serde(default = "yes")]
    pub clip: bool,
}

fn one() -> usize {
    1
}

fn unit() -> f64 {
    1.0
}

fn yes() -> bool {
    true
}

fn autodiff() -> String {
    "autodiff".to_owned()
}

fn decay_roles() -> Vec<String> {
    [Role::Kernel, Role::Embedding].map(|role| role.name().to_owned()).to_vec()
}

/// What the configuration means for one parameter.
#[derive(Clone, Debug)]
pub(super) struct Settings {
    pub target: Target,
    /// Whether it is trained at all.
    pub trained: bool,
    /// What its learning rate is multiplied by.
    pub learning_rate: f64,
    /// Its weight decay.
    pub weight_decay: f64,
    /// Whether its gradient is clipped.
    pub clip: bool,
}

impl Session {
    /// Sets the optimizer; its state starts anew.
    pub fn set_optimizer(&mut self, config: &OptimizerConfig) -> Result<()> {
        let known: HashSet<&str> = self.program.parameters().map(|(_, parameter)| parameter.path.as_str()).collect();
        let named = config.groups.iter().flat_map(|group| group.paths.iter().map(|path| ("groups", path)));
        let named = named.chain(config.frozen.iter().map(|path| ("frozen", path)));
        if let Some((argument, path)) = named.into_iter().find(|(_, path)| !known.contains(path.as_str())) {
            return Err(Error::Missing(format!("{argument}: there is no parameter {path:?}")));
        }
        let mut hyperparameters = config.hyperparameters.clone();
        hyperparameters.remove("learning_rate");
        let rule = optimizer::rule(&config.name, Json::Object(hyperparameters))?;
        if rule.solver().is_some() {
            solver::check(config)?;
        }
        let settings = settings(&self.program, config, rule.weight_decay())?;
        // Layers that run again are found by their own operations.
        self.run_fused(!matches!(config.checkpoint_activations, Checkpoint::Layers(_)));
        self.training = Some(Training::new(
            rule,
            Method::parse(&config.gradient_method)?,
            config,
            settings,
            self.program.values().len(),
        ));
        Ok(())
    }
}

impl Session {
    /// Begins, goes on or ends to average the weights; see [`OptimizerConfig::average`].
    pub fn set_average(&mut self, decay: Option<f64>) -> Result<()> {
        let training = self.training_mut()?;
        training.average = decay.map(|decay| Average { decay, ..training.average.take().unwrap_or_default() });
        Ok(())
    }
}

/// The settings of every parameter; the last group that names one decides.
fn settings(program: &Program, config: &OptimizerConfig, weight_decay: f64) -> Result<BTreeMap<ValueId, Settings>> {
    let roles = config.decay_roles.iter().map(|role| Role::parse(role)).collect::<Result<HashSet<_>>>()?;
    let frozen: HashSet<&String> = config.frozen.iter().collect();
    let groups: BTreeMap<&String, &GroupConfig> =
        config.groups.iter().flat_map(|group| group.paths.iter().map(move |path| (path, group))).collect();
    let hidden = program.hidden();
    Ok(program
        .parameters()
        .map(|(id, parameter)| {
            let group = groups.get(&parameter.path);
            let decay = group.and_then(|group| group.weight_decay).unwrap_or(weight_decay);
            let settings = Settings {
                target: Target { shape: parameter.shape.clone(), role: parameter.role, hidden: hidden[id] },
                trained: !frozen.contains(&parameter.path),
                learning_rate: group.map_or(1.0, |group| group.learning_rate),
                weight_decay: if roles.contains(&parameter.role) { decay } else { 0.0 },
                clip: group.is_none_or(|group| group.clip),
            };
            (id, settings)
        })
        .collect())
}
