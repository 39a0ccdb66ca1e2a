"""The commands of `cract`, a module each: DESCRIPTION, add_arguments(parser) and run(arguments) -> exit status."""

COMMANDS = {  # name -> module, summary
    'track': ('track', 'follow an object through a video, an image folder or a camera'),
    'eval': ('evaluate', 'measure accuracy and speed on annotated sequences'),
    'bag': ('bag', 'follow an object through a ROS 2 bag, without ROS'),
    'train': ('train', 'train the networks offline'),
    'data': ('data', 'make training shards, look at training pairs'),
    'export': ('export', 'write the networks as ONNX or OpenVINO files'),
    'bench': ('bench', 'measure how fast the tracker is on this machine'),
    'tune': ('tune', "choose the tracker's parameters on annotated sequences"),
    'calibrate': ('calibrate', 'fit the score to the probability of being right'),
    'ablate': ('ablate', 'measure what each part of the tracker is worth'),
    'synth': ('synth', 'render an annotated aerial scene'),
    'params': ('params', 'print the table of parameters'),
}
