//! What the controller says it supports: log pages, features, and what commands reach.

use nvio_spec::opcode::admin;
use nvio_spec::{
    CommandEffects, FeatureEffects, NSID_ALL, SupportedLogPages, feature_id, log_id, scope,
};
use zerocopy::FromZeros;
use zerocopy::little_endian::U32;

use crate::controller::Controller;
use crate::feature::Features;

impl Controller {
    /// Supported Log Pages (Base 5.16.1.1): those that Get Log Page gives.
    pub(crate) fn supported_log_pages(&self) -> SupportedLogPages {
        let mut page = SupportedLogPages::new_zeroed();
        let given =
            |id: u8| id == log_id::SUPPORTED_LOG_PAGES || self.log_page(id, NSID_ALL).is_ok();
        for (id, entry) in (0..=u8::MAX).zip(&mut page.page) {
            *entry = U32::new(given(id).into());
        }
        page
    }
}

impl Features {
    /// Feature Identifiers Supported and Effects (Base 5.16.1.18). None changes user data or
    /// what the controller is capable of.
    pub(crate) fn effects(&self) -> FeatureEffects {
        let mut page = FeatureEffects::new_zeroed();
        let cache = self.has_write_cache().then_some(feature_id::VOLATILE_WRITE_CACHE);
        let of_the_controller = [
            feature_id::ARBITRATION,
            feature_id::POWER_MANAGEMENT,
            feature_id::TEMPERATURE_THRESHOLD,
            feature_id::NUMBER_OF_QUEUES,
            feature_id::INTERRUPT_COALESCING,
            feature_id::INTERRUPT_VECTOR_CONFIGURATION,
            feature_id::WRITE_ATOMICITY_NORMAL,
            feature_id::ASYNC_EVENT_CONFIGURATION,
        ];
        for id in of_the_controller.into_iter().chain(cache) {
            let entry = FeatureEffects::SUPPORTED | scope::CONTROLLER;
            page.feature[usize::from(id)] = U32::new(entry);
        }
        let entry = FeatureEffects::SUPPORTED | scope::NAMESPACE;
        page.feature[usize::from(feature_id::ERROR_RECOVERY)] = U32::new(entry);
        page
    }
}

/// Adds the scope of each command that is supported.
pub(crate) fn add_scopes(page: &mut CommandEffects) {
    let add = |entry: &mut U32, scope: u32| {
        if entry.get() & CommandEffects::SUPPORTED != 0 {
            *entry = U32::new(entry.get() | scope);
        }
    };
    for (opcode, entry) in (0..=u8::MAX).zip(&mut page.admin) {
        let scope = match opcode {
            admin::FORMAT_NVM => scope::NAMESPACE,
            admin::NAMESPACE_MANAGEMENT | admin::NAMESPACE_ATTACHMENT => scope::SUBSYSTEM,
            _ => scope::CONTROLLER,
        };
        add(entry, scope);
    }
    page.io.iter_mut().for_each(|entry| add(entry, scope::NAMESPACE));
}
