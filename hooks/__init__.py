"""initscope.hooks: the side of the training job."""
