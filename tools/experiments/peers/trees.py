_base_ = '../../../configs/sample/trees/faster-rcnn_lite0_fpn_6e_trees-256.py'
custom_imports = dict(imports=['mmaib', 'peers'])

model = dict(neck=dict(type='FPNWithPart', part=dict(type='CBAM')))
