_base_ = '../../../configs/sample/bccd/faster-rcnn_lite0_fpn_12e_bccd-256.py'
custom_imports = dict(imports=['mmaib', 'peers'])

model = dict(neck=dict(type='FPNWithPart', part=dict(type='CBAM')))
