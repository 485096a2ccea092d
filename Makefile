# The few commands of this repository. Each makes sure that a Vulkan adapter is there, then calls cargo.
# `make` alone lists them; CARGO=... picks another cargo, ARGS=... passes options on: make demo ARGS="--png heat.png"
CARGO ?= cargo
# Debian 12's Mesa complains where no session has set this, as in containers.
export XDG_RUNTIME_DIR ?= /tmp

help: ## list these targets
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/make \1	\2/p' Makefile

setup: ## install what is missing: a C linker, the Vulkan loader, a driver (nothing on macOS and Windows)
	@sh tools/ensure-vulkan.sh

demo: setup ## attention of a real encoder, drawn in the terminal
	@$(CARGO) run --release -- demo $(ARGS)

test: setup ## the whole test suite, on every adapter that is there
	@$(CARGO) test $(ARGS)

.PHONY: help setup demo test
