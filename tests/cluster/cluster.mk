##@ Cluster (CLUSTER=local | kind | current; without it kind where containers run, else local)

cluster-up: ## Bring up the cluster of demo and tests, or mend it; writes .run/kubeconfig
	@$(PYTHON) -m tests.cluster up

cluster-down: ## Take it down; built programs and image layers stay in the cache
	@$(PYTHON) -m tests.cluster down

images: ## Build the two images (only what changed); their names go to .run/images.env
	@$(PYTHON) -m tests.cluster images

images-load: ## Build the images and bring them to the cluster's nodes
	@$(PYTHON) -m tests.cluster load

cluster-deps: ## Install and build what CLUSTER=local needs (packages, Kubernetes from Go modules)
	@$(PYTHON) -m tests.cluster deps

.PHONY: cluster-up cluster-down images images-load cluster-deps
